"""Reading files: what comes out, and that damage is named with its place."""

import sys
from pathlib import Path

import polars
import pytest
import zstandard
from corpora import jsonl, stories

from polymorph.errors import RequestError
from polymorph.tasks.text.files import documents, file_facts, found

TEXTS = stories(30)


def compressed(data: bytes, frames: int = 1) -> bytes:
    """In several frames, as `cat a.zst b.zst` makes them."""
    size = -(-len(data) // frames)
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def table(folder: Path, columns: dict) -> Path:
    path = folder / "table.parquet"
    polars.DataFrame(columns).write_parquet(path, row_group_size=7)
    return path


def test_every_kind_gives_its_documents_in_order(tmp_path):
    lines = jsonl(TEXTS)
    for name, data in {
        "a.jsonl": lines,
        "end.jsonl": lines.rstrip(b"\n"),
        "blank.jsonl": lines.replace(b"\n", b"\n\n") + b"  \n",
        "b.jsonl.zst": compressed(lines),
        "frames.jsonl.zst": compressed(lines, frames=5),
        "c.txt": "\f".join(TEXTS).encode(),
        "ends.txt": "".join(f"{text}\f" for text in TEXTS).encode(),
    }.items():
        assert list(documents([written(tmp_path, name, data)], "text")) == TEXTS, name
    assert list(documents([table(tmp_path, {"text": TEXTS, "id": range(30)})], "text")) == TEXTS


def test_blank_lines_do_not_divide_a_plain_text(tmp_path):
    whole = "\n\n".join(TEXTS)
    assert list(documents([written(tmp_path, "whole.txt", whole.encode())], "unread")) == [whole]


def test_another_column_is_another_text(tmp_path):
    path = written(tmp_path, "a.jsonl", jsonl(TEXTS, "body"))
    assert list(documents([path], "body")) == TEXTS
    with pytest.raises(RequestError, match=r"task\.text_column=text: .*a\.jsonl, line 1 has only body"):
        list(documents([path], "text"))
    path = table(tmp_path, {"body": TEXTS, "id": range(30)})
    assert list(documents([path], "body")) == TEXTS
    with pytest.raises(RequestError, match=r"task\.text_column=text: .*table\.parquet has only body, id"):
        list(documents([path], "text"))


GOOD = jsonl(TEXTS[:2])


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b"", r"a\.jsonl is empty"),
        ("a.jsonl", b"\n \n", r"a\.jsonl is empty"),
        ("a.txt", b"", r"a\.txt is empty"),
        ("a.txt", b" \n\f\n", r"a\.txt is empty"),
        ("a.jsonl.zst", b"", r"a\.jsonl\.zst is empty"),
        ("a.jsonl.zst", compressed(b"\n"), r"a\.jsonl\.zst is empty"),
        ("a.jsonl", GOOD + b'{"text": "cut o', r"a\.jsonl, line 3 is not JSON, or is cut off"),
        ("a.jsonl", GOOD + b'["text"]\n', r"a\.jsonl, line 3 holds list"),
        ("a.jsonl", GOOD + b'{"text": null}\n', r"a\.jsonl, line 3 has NoneType there"),
        ("a.jsonl", GOOD + b'{"text": "\xff"}\n', r"a\.jsonl, line 3 is not UTF-8"),
        ("a.jsonl", GOOD + b'{"text": "\\ud800"}\n', r"a\.jsonl, line 3 holds half a character"),
        ("a.jsonl", GOOD + b"[" * 100_000 + b"\n", r"a\.jsonl, line 3 is not JSON"),
        ("a.txt", b"one\ntwo\nthr\xe9e\n", r"a\.txt, line 3 is not UTF-8"),
        ("a.jsonl.zst", compressed(jsonl(TEXTS))[:-9], r"a\.jsonl\.zst is truncated"),
        ("a.jsonl.zst", compressed(GOOD) + b"\x28\xb5\x2f", r"a\.jsonl\.zst is truncated"),
        ("a.jsonl.zst", jsonl(TEXTS), r"a\.jsonl\.zst is damaged"),
        ("a.jsonl.zst", compressed(GOOD + b'{"te'), r"a\.jsonl\.zst, line 3 is not JSON"),
        ("a.parquet", b"PAR1 nothing of the kind PAR1", r"a\.parquet is damaged, or cut off"),
        ("a.parquet", b"", r"a\.parquet is damaged, or cut off"),
    ],
)
def test_damage_is_named_with_its_place(tmp_path, name, data, said):
    path = written(tmp_path, name, data)
    with pytest.raises(RequestError, match=said):
        list(documents([path], "text"))


def test_documents_before_the_damage_are_given(tmp_path):
    """The opposite: what is whole is read until the place that is named."""
    reading = documents([written(tmp_path, "a.jsonl", GOOD + b"{")], "text")
    assert [next(reading), next(reading)] == TEXTS[:2]
    with pytest.raises(RequestError, match="line 3"):
        next(reading)


def test_a_table_that_is_cut_off_empty_or_not_of_texts_is_refused(tmp_path):
    path = table(tmp_path, {"text": TEXTS})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RequestError, match=r"table\.parquet is damaged, or cut off"):
        list(documents([path], "text"))
    with pytest.raises(RequestError, match=r"table\.parquet is empty"):
        list(documents([table(tmp_path, {"text": polars.Series([], dtype=polars.String)})], "text"))
    with pytest.raises(RequestError, match=r"table\.parquet, row 2 has NoneType there"):
        list(documents([table(tmp_path, {"text": ["a", None]})], "text"))
    with pytest.raises(RequestError, match=r"table\.parquet, row 1 has int there"):
        list(documents([table(tmp_path, {"text": [1, 2]})], "text"))


def test_without_zstandard_its_install_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, "a.jsonl.zst", compressed(GOOD))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(RequestError, match="pip install zstandard"):
        list(documents([path], "text"))


def test_patterns_name_each_file_once_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.jsonl"):
        written(tmp_path, name, b"x")
    (tmp_path / "below").mkdir()
    written(tmp_path / "below", "d.txt", b"x")
    assert [path.name for path in found([f"{tmp_path}/*.txt"])] == ["a.txt", "b.txt"]
    assert [path.name for path in found([f"{tmp_path}/c.jsonl", f"{tmp_path}/**/*"[:-1] + "*.*"])] == [
        "c.jsonl",
        "a.txt",
        "b.txt",
        "d.txt",
    ]


@pytest.mark.parametrize("pattern", ["*.parquet", "none.txt", ".", "below/*.txt"])
def test_a_pattern_without_a_file_is_refused(tmp_path, pattern):
    written(tmp_path, "a.txt", b"x")
    with pytest.raises(RequestError, match="names no file"):
        found([f"{tmp_path}/a.txt", f"{tmp_path}/{pattern}"])


def test_an_unknown_kind_is_refused(tmp_path):
    path = written(tmp_path, "a.csv", b"x")
    with pytest.raises(RequestError, match=r"a\.csv is of no known kind: one of \.jsonl"):
        found([str(path)])


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"gone\.txt could not be read"):
        list(documents([tmp_path / "gone.txt"], "text"))


def test_facts_follow_the_content_and_not_the_place(tmp_path):
    (tmp_path / "below").mkdir()
    one, same = written(tmp_path, "a.txt", b"x"), written(tmp_path / "below", "a.txt", b"x")
    assert file_facts(one) == file_facts(same)
    assert file_facts(one) != file_facts(written(tmp_path, "a.txt", b"y"))
