"""A text prepared in a folder: what is in it, that it is whole, and that it is the one that was asked for."""

import importlib
import math
import os
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from corpora import EVEN, config_of, jsonl, stories
from transformers import AutoTokenizer

from polymorph.errors import RequestError
from polymorph.store import ConflictError, CorruptError, sweep
from polymorph.store.process_liveness import draft_name
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.task import Task
from polymorph.tasks.text.config import TextConfig, TextShares, TextSplits
from polymorph.tasks.text.prepare import prepare
from polymorph.tasks.text.stored import open_text, text_config, text_identity
from polymorph.tasks.text.text_task import Text
from polymorph.tasks.text.tokenizer import trained

CPU = torch.device("cpu")
SHARES = TextShares(**EVEN)


def silent(_line: str) -> None:
    pass


def made(folder: Path, texts, name: str = "cohort", **options) -> Text:
    return prepare(config_of(folder, texts, **{"shares": SHARES, **options}), folder / name, silent)


def read_back(text: Text) -> dict[str, list[str]]:
    """The documents of each split, from tokens to text by the tokenizer that lies beside them."""
    tokenizer = AutoTokenizer.from_pretrained(text.tokens.tokenizer.parent)
    found: dict[str, list[str]] = {}
    for split in TextSplits:
        first, end = text.tokens.splits[split]
        found[split] = []
        for i in range(first, end):
            tokens = text.tokens.tokens[text.tokens.starts[i] : text.tokens.starts[i + 1]]
            assert tokens[-1] == text.tokens.eos
            assert (tokens[:-1] != text.tokens.eos).all()
            found[split].append(tokenizer.decode(tokens[:-1].tolist()))
            assert tokenizer(found[split][-1], add_special_tokens=False).input_ids == tokens[:-1].tolist()
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "text").iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_document_is_in_one_split_and_comes_back_as_it_was(tmp_path):
    texts = [*stories(80), "A text that spells <|endoftext|> out.", "word " * 200]
    text = made(tmp_path, texts)
    found = read_back(text)
    assert sorted(one for split in TextSplits for one in found[split]) == sorted(texts)
    for split in TextSplits:
        assert len(found[split]) == text.tokens.documents(split) > 0
        assert found[split] == [one for one in texts if one in found[split]]  # in the source's order


def test_a_text_is_a_task(tmp_path):
    task: Task = made(tmp_path, stories(80))
    assert isinstance(task.tokens.tokens, np.memmap)
    assert not task.tokens.tokens.flags.writeable
    windows = task.inputs(task.batches(torch.tensor([0, 1]), torch.tensor([0]), 3)[0])
    assert windows.arguments[0].shape == (2, 3, 16)
    assert next(task.probe(ProbeConfig(fit=2, eval=2), "eval", CPU)).document.max() <= 1
    assert task.fresh(0, 0, 20, CPU).kept.sum() == 32


def test_where_a_document_goes_does_not_depend_on_the_others(tmp_path):
    few = read_back(made(tmp_path, stories(40)))
    many = read_back(made(tmp_path, [*stories(30, seed=1), *stories(40)[::-1]], "many"))
    for split in TextSplits:
        assert set(few[split]) <= set(many[split])
    other = read_back(made(tmp_path, stories(40), "other", seed=1))
    assert any(set(few[split]) != set(other[split]) for split in TextSplits)


def test_shares_are_kept_to(tmp_path):
    """2,000 documents: a share of 0.4 within 5 of its 0.011 standard deviations; a share of 0 gets none."""
    shares = TextShares(train=0.4, sae=0.6, evaluation=0.0, fit=0.0, eval=0.0)
    text = made(tmp_path, (f"{i}" for i in range(2000)), shares=shares)
    documents = {split: text.tokens.documents(split) for split in TextSplits}
    assert abs(documents["train"] / 2000 - 0.4) < 0.055
    assert documents["train"] + documents["sae"] == 2000


def test_what_is_left_out_is_counted(tmp_path):
    texts = [*stories(20), "short", *stories(10), "short", "other"]
    text = made(tmp_path, texts, min_characters=6)
    assert sorted(one for split in read_back(text).values() for one in split) == sorted(stories(20))
    assert text.tokens.facts["left_out"] == {"duplicates": 10, "short": 3}


@pytest.mark.parametrize("limit", [1, 7, 20, 500])
def test_reading_stops_at_the_documents_asked_for(tmp_path, limit):
    text = made(tmp_path, [*stories(20), *stories(20)], max_documents=limit, tokenizer=_tokenizer(tmp_path))
    found = {one for split in read_back(text).values() for one in split}
    assert found == set(stories(20)[:limit])


def test_reading_stops_with_the_document_that_reaches_the_tokens(tmp_path):
    """And what comes after is not even looked at."""
    config = config_of(tmp_path, shares=SHARES, tokenizer=_tokenizer(tmp_path))
    Path(config.files[0]).write_bytes(jsonl(stories(20)))
    whole = prepare(config, tmp_path / "whole", silent).tokens
    lengths = {
        text: len(AutoTokenizer.from_pretrained(whole.tokenizer.parent)(text).input_ids) + 1
        for text in stories(20)
    }
    for limit in (1, 100, 333):
        text = prepare(replace(config, max_tokens=limit), tmp_path / f"{limit}", silent)
        found = {one for split in read_back(text).values() for one in split}
        kept, total = [], 0
        for one in stories(20):
            if total < limit:
                kept.append(one)
                total += lengths[one]
        assert found == set(kept)
        assert text.tokens.facts["tokens"] == len(text.tokens.tokens) == total


def _tokenizer(folder: Path) -> str:
    place = folder / "tokenizer"
    if not place.exists():
        place.mkdir()
        for name, data in trained(stories(50), 300).files().items():
            (place / name).write_bytes(data)
    return str(place)


def test_the_tokenizer_is_trained_on_the_training_split_alone(tmp_path):
    text = made(tmp_path, stories(60))
    encoder = trained(read_back(text)["train"], 300)
    assert text.tokens.tokenizer.read_bytes() == encoder.files()["tokenizer.json"]


def test_facts_are_true(tmp_path):
    text = made(tmp_path, stories(60))
    facts, found = text.tokens.facts, read_back(text)
    row = text.tokens.tokens
    assert facts["tokens"] == len(row) == sum(one["tokens"] for one in facts["splits"].values())
    assert facts["documents"] == 60
    assert facts["characters"] == sum(len(one) for split in found.values() for one in split)
    for split, counts in facts["splits"].items():
        start, end = text.tokens.span(split)
        assert counts == {"documents": len(found[split]), "tokens": end - start}
    start, end = text.tokens.span("train")
    counts = Counter(row[start:end].tolist())
    entropy = -sum(n / (end - start) * math.log(n / (end - start)) for n in counts.values())
    assert facts["unigram_entropy"] == pytest.approx(entropy, rel=1e-12)
    assert facts["source"]["files"][0]["name"] == "corpus.jsonl"
    assert facts["config"] == text.config.deciding()
    assert facts["dtype"] == row.dtype.name == "uint16"
    published = text.tokens.tokenizer.parent
    rows = safetensors.numpy.load_file(published / "tokens.safetensors")
    assert (rows["tokens"] == row).all()
    assert (
        safetensors.numpy.load_file(published / "documents.safetensors")["starts"] == text.tokens.starts
    ).all()


def test_a_text_without_training_documents_has_no_entropy(tmp_path):
    shares = TextShares(train=0.0, sae=0.4, evaluation=0.0, fit=0.3, eval=0.3)
    text = made(tmp_path, stories(60), shares=shares, tokenizer=_tokenizer(tmp_path))
    assert text.tokens.facts["unigram_entropy"] is None
    assert text.tokens.span("train") == (0, 0)


def test_the_same_again_does_nothing_and_says_nothing(tmp_path):
    config = config_of(tmp_path, stories(40), shares=SHARES)
    lines: list[str] = []
    prepare(config, tmp_path / "cohort", lines.append)
    assert lines[-1].startswith("text: 40 documents, ")
    assert "tokens from corpus.jsonl; " in lines[-1]
    before, told = files_of(tmp_path / "cohort"), len(lines)
    Path(config.files[0]).unlink()  # nor is the source looked at
    prepare(replace(config, context=9, windows=1), tmp_path / "cohort", lines.append)
    assert files_of(tmp_path / "cohort") == before
    assert len(lines) == told


def test_two_folders_get_the_same_bits(tmp_path):
    made(tmp_path, stories(40), "one")
    made(tmp_path, stories(40), "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, r"task\.seed: 0 there, 1 here"),
        ({"vocab_size": 301}, r"task\.vocab_size: 300 there, 301 here"),
        ({"min_characters": 2}, r"task\.min_characters: 1 there, 2 here"),
        ({"shares": TextShares()}, r"task\.shares\.eval: 0\.15 there, 0\.06 here"),
        ({"source": "docstrings", "files": []}, r"task\.source: 'files' there, 'docstrings' here"),
    ],
)
def test_another_text_in_the_folder_is_refused_side_by_side(tmp_path, changes, said):
    text = made(tmp_path, stories(40))
    other = TextConfig(**{**_fields(text.config), **changes})
    for use in (open_text, text_identity, lambda *request: prepare(*request, silent)):
        with pytest.raises(RequestError, match=said):
            use(other, tmp_path / "cohort")


def _fields(config: TextConfig) -> dict:
    return {**asdict(config), "shares": config.shares}


def test_a_folder_without_a_text_says_what_prepares_it(tmp_path):
    config = config_of(tmp_path, stories(3))
    for use in (open_text, text_identity, lambda _, folder: text_config(folder)):
        with pytest.raises(
            RequestError, match=r"holds no text; .* python train\.py stage=text cohort\.name=none"
        ):
            use(config, tmp_path / "none")


def test_identity_is_the_text_and_how_it_is_cut(tmp_path):
    text = made(tmp_path, stories(40))
    config, folder = text.config, tmp_path / "cohort"
    identity = text_identity(config, folder)
    assert identity["name"] == "text"
    assert (identity["context"], identity["windows"]) == (16, 3)
    assert text_identity(replace(config, context=9), folder)["text"] == identity["text"]
    assert text_identity(replace(config, context=9), folder) != identity
    corpus = Path(config.files[0])
    corpus.write_bytes(corpus.read_bytes() + jsonl(["one more"]))
    prepare(config, tmp_path / "again", silent)
    assert text_identity(config, tmp_path / "again") != identity
    again = text_config(folder)
    assert TextConfig(**{**again, "shares": TextShares(**again["shares"])}).deciding() == config.deciding()


@pytest.mark.parametrize(
    "name", ["tokens.safetensors", "documents.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
def test_damage_is_seen_when_it_is_opened(tmp_path, name):
    config, folder = made(tmp_path, stories(40)).config, tmp_path / "cohort"
    path = folder / "text" / name
    whole = path.read_bytes()
    for damaged, said in {
        whole[:-1]: rf"{name} has {len(whole) - 1} bytes where {len(whole)} were published",
        whole + b"\x00": rf"{name} has {len(whole) + 1} bytes",
        whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]: rf"{name} has SHA-256",
    }.items():
        path.write_bytes(damaged)
        with pytest.raises(CorruptError, match=said):
            open_text(config, folder)
        with pytest.raises(CorruptError, match=said):
            prepare(config, folder, silent)
    path.write_bytes(whole)
    open_text(config, folder)
    path.unlink()
    with pytest.raises(CorruptError, match=rf"{name} is missing"):
        open_text(config, folder)


def test_a_flipped_bit_is_seen_although_the_file_was_verified_before(tmp_path):
    """At the same size, by another time; and a file is not read again where nothing has changed."""
    config, folder = made(tmp_path, stories(40)).config, tmp_path / "cohort"
    path = folder / "text" / "tokens.safetensors"
    whole = bytearray(path.read_bytes())
    open_text(config, folder)
    whole[-1] ^= 128
    path.write_bytes(whole)
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    with pytest.raises(CorruptError, match="SHA-256"):
        open_text(config, folder)


def test_tokens_of_another_text_are_refused(tmp_path):
    config = made(tmp_path, stories(40)).config
    made(tmp_path, stories(40), "other", vocab_size=290)
    name = "text/tokens.safetensors"
    (tmp_path / "cohort" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(CorruptError, match=r"tokens\.safetensors has"):
        open_text(config, tmp_path / "cohort")


def test_a_changed_manifest_and_a_stray_file_are_refused(tmp_path):
    config, folder = made(tmp_path, stories(40)).config, tmp_path / "cohort"
    manifest = folder / "text" / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b'"eos": 0', b'"eos": 1'))
    with pytest.raises(CorruptError, match="digest"):
        open_text(config, folder)
    manifest.write_bytes(whole)
    (folder / "text" / "model.pkl").write_bytes(b"x")
    with pytest.raises(CorruptError, match=r"model\.pkl.*was not published"):
        open_text(config, folder)


def test_links_are_not_followed(tmp_path):
    config = made(tmp_path, stories(40)).config
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "text").symlink_to(tmp_path / "cohort" / "text")
    with pytest.raises(CorruptError, match="symbolic link"):
        open_text(config, tmp_path / "linked")


def test_a_request_that_fails_leaves_nothing(tmp_path):
    broken = config_of(tmp_path, shares=SHARES)
    Path(broken.files[0]).write_bytes(jsonl(stories(40)) + b"{")
    with pytest.raises(RequestError, match="line 41"):
        prepare(broken, tmp_path / "cohorts" / "new", silent)
    assert names(tmp_path) == ["corpus.jsonl"]
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "kept").touch()
    with pytest.raises(RequestError, match="line 41"):
        prepare(broken, tmp_path / "cohort", silent)
    assert names(tmp_path / "cohort") == ["kept"]


@pytest.mark.parametrize(
    ("texts", "options", "said"),
    [
        (["short"], {"min_characters": 6, "tokenizer": "there"}, r"no document of at least task\.min_characters=6"),
        (["short"], {"min_characters": 6}, r"task\.tokenizer=train: no document is in the training split"),
        (["a"], {"shares": TextShares(1e-9, 1 - 1e-9, 0.0, 0.0, 0.0)}, "no document is in the training split"),
    ],
)  # fmt: skip
def test_a_text_of_nothing_is_refused(tmp_path, texts, options, said):
    if "tokenizer" in options:
        options = {**options, "tokenizer": _tokenizer(tmp_path)}
    with pytest.raises(RequestError, match=said):
        made(tmp_path, texts, **options)
    assert not (tmp_path / "cohort").exists()


def test_what_a_killed_preparation_left_is_swept(tmp_path):
    child = os.fork()
    if not child:
        (tmp_path / "cohort").mkdir()
        draft = tmp_path / "cohort" / draft_name()
        draft.mkdir()
        (draft / "train.tokens").write_bytes(b"x")
        os._exit(0)
    os.waitpid(child, 0)
    mine = tmp_path / "cohort" / draft_name()
    mine.mkdir()
    made(tmp_path, stories(40))
    assert names(tmp_path / "cohort") == [mine.name, "text"]  # that of a living process stays
    mine.rmdir()
    assert sweep(tmp_path / "cohort", depth=5) == []


def test_of_several_at_once_one_prepares_and_all_use_it(tmp_path):
    config, folder = config_of(tmp_path, stories(60), shares=SHARES), tmp_path / "cohort"
    ready, start = os.pipe()
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            os.close(start)
            os.read(ready, 1)  # until the parent closes the other end
            status = 1
            try:
                text = prepare(config, folder, silent)
                status = 0 if text.tokens.facts["documents"] == 60 else 2
            finally:
                os._exit(status)
        children.append(child)
    os.close(start)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    os.close(ready)
    assert names(folder) == ["text"]
    prepare(config, tmp_path / "alone", silent)
    assert files_of(folder) == files_of(tmp_path / "alone")


def test_a_writer_of_something_else_at_the_same_moment_is_a_conflict(tmp_path, monkeypatch):
    """What came first stays; the loser says so and leaves no draft. The same again is benign."""
    config, folder = made(tmp_path, stories(40)).config, tmp_path / "cohort"
    before = files_of(folder)
    module = importlib.import_module("polymorph.tasks.text.prepare")
    monkeypatch.setattr(module, "is_published", lambda _: False)  # as it was when both of them looked
    with pytest.raises(ConflictError, match="two runs that differ"):
        prepare(replace(config, seed=1), folder, silent)
    prepare(config, folder, silent)
    assert names(folder) == ["text"]
    assert files_of(folder) == before
