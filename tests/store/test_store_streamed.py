"""Folders that are written piece by piece: whole or not at all, whatever happens at whichever file-system call."""

import errno
import shutil
from pathlib import Path

import pytest
from store_faults import (
    KILLED,
    at_call,
    calls_of,
    drafts,
    failing,
    in_child,
    kill_after,
    kill_amid,
    kill_before,
    snapshot,
)

from polymorph.errors import RunError
from polymorph.store import ConflictError, CorruptError, safe_read, sweep
from polymorph.store.streamed_files import (
    Stream,
    draft_below,
    publish_draft,
    read_manifest,
    read_streamed,
)

FACTS = {"made": "here"}
PIECES = [b"first ", b"", b"x" * 3000, b" last"]


def write(root: Path, facts: dict = FACTS) -> None:
    with draft_below(root) as draft:
        entries = {}
        for name in ("a.safetensors", "b.json"):
            with Stream(draft / name) as stream:
                for piece in PIECES:
                    stream.write(piece)
            entries[name] = stream.entry
        publish_draft(draft, entries, facts, root / "big", root)


def is_there(root: Path) -> bool:
    """Whether it can be seen; if so, it is whole."""
    if not safe_read.exists(root / "big"):
        return False
    assert read_streamed(root / "big", root).facts == FACTS
    assert (root / "big" / "b.json").read_bytes() == b"".join(PIECES)
    return True


def test_what_was_streamed_is_what_is_read(tmp_path):
    write(tmp_path / "root")
    assert is_there(tmp_path / "root")
    assert drafts(tmp_path) == []
    manifest = read_manifest(tmp_path / "root" / "big", tmp_path / "root")
    assert manifest.files["b.json"].size == len(b"".join(PIECES))


def test_a_file_longer_than_what_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("polymorph.store.streamed_files.BLOCK", 7)
    write(tmp_path)
    assert is_there(tmp_path)


def test_the_same_again_is_benign_and_something_else_a_conflict(tmp_path):
    write(tmp_path)
    before = snapshot(tmp_path)
    write(tmp_path)
    with pytest.raises(ConflictError, match="two runs that differ"):
        write(tmp_path, {"made": "elsewhere"})
    assert snapshot(tmp_path) == before
    assert drafts(tmp_path) == []


def test_a_file_that_was_not_listed_is_not_published(tmp_path):
    with draft_below(tmp_path) as draft:
        (draft / "stray.json").write_bytes(b"{}")
        with pytest.raises(CorruptError, match="was not published"):
            publish_draft(draft, {}, FACTS, tmp_path / "big", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writers_leaves_nothing(tmp_path):
    def interrupted() -> None:
        with draft_below(tmp_path) as draft, Stream(draft / "a.json") as stream:
            stream.write(b"{")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_killed_at_every_call(tmp_path):
    calls = calls_of(lambda: write(tmp_path / "undisturbed"))
    visible = set()
    for index, call in enumerate(calls):
        for fault in [kill_before, kill_after, *([kill_amid] if call == "write" else [])]:
            root = tmp_path / f"{index}-{fault.__name__}"

            def act(root: Path = root, index: int = index, fault=fault) -> None:
                with at_call(index, fault):
                    write(root)

            assert in_child(act) == KILLED
            visible.add(is_there(root))
            sweep(root)
            assert drafts(tmp_path) == []
            write(root)
            assert is_there(root)
            shutil.rmtree(root)
    assert visible == {False, True}  # kills both before and after the moment at which it counts


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_the_system_refuses_at_every_call(tmp_path, number):
    """What fails is said in an error of ours, and what is there is whole; then the same again succeeds."""
    calls = calls_of(lambda: write(tmp_path / "undisturbed"))
    refused = 0
    for index in range(len(calls)):
        root = tmp_path / f"{index}"
        try:
            with at_call(index, failing(number)):
                write(root)
        except RunError:
            refused += 1
        is_there(root)
        sweep(root)
        write(root)
        assert is_there(root)
    assert refused > len(calls) / 2
