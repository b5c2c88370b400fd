"""A kill, a full disk and a failing disk at every single file-system call of every way of writing."""

import errno
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from store_faults import (
    CALLS,
    IDENTITY,
    KILLED,
    at_call,
    calls_of,
    drafts,
    equal,
    failing,
    in_child,
    kill_after,
    kill_amid,
    kill_before,
    replaced_calls,
    snapshot,
    weights_of,
)

from polymorph.errors import RequestError, RunError
from polymorph.store import (
    Cohort,
    Member,
    NoSpaceError,
    Status,
    UnreadableError,
    WriteError,
    files,
    publication,
    publish,
)

KEY, LABEL = "5f" * 32, "seed-0003--seed-0004"
READING = {"absolute", "close", "names", "open_read", "read", "real", "stat", "stat_open"}
ROW = {"step": 20, "loss": 0.25}
WRITERS: dict[str, Callable[[Cohort], object]] = {
    "step": lambda cohort: cohort.member(3).publish_step(20, weights_of(20), {"config": "c"}, weights_of(21)),
    "state": lambda cohort: cohort.member(3).publish_state(20, weights_of(120), {"config": "c"}),
    "prune": lambda cohort: cohort.member(3).prune_states(keep=1),
    "status": lambda cohort: cohort.member(3).set_status(Status("completed", 20, stack=(3,))),
    "config": lambda cohort: cohort.member(3).write_config({"lr": 0.1}),
    "row": lambda cohort: cohort.member(3).append_row(ROW),
    "pair": lambda cohort: cohort.pairs.publish(KEY, LABEL, [{"value": 0.1}], {"metric": 1}),
    "cohort": lambda cohort: Cohort.create(cohort.folder, IDENTITY),
}


def prepare(folder: Path, writer: str) -> Cohort:
    """What is there before the writer begins."""
    if writer == "cohort":
        return Cohort(folder, IDENTITY)
    cohort = Cohort.create(folder, IDENTITY)
    member = cohort.member(3)
    member.publish_step(10, weights_of(10), {"config": "c"})
    member.publish_state(5, weights_of(105), {"config": "c"})
    member.publish_state(10, weights_of(110), {"config": "c"})
    member.set_status(Status("running", 10))
    member.append_row({"step": 10})
    return cohort


def check_whole(cohort: Cohort, writer: str) -> bool:
    """Everything that can be seen is whole; whether what `writer` writes can be seen."""
    member = cohort.member(3)
    if writer == "cohort":
        return (cohort.folder / "cohort.json").exists() and Cohort.open(cohort.folder).identity == IDENTITY
    for step in member.steps():
        assert equal(member.read_step(step).weights, weights_of(step))
    for step in member.states():
        assert equal(member.read_state(step).tensors, weights_of(100 + step))
    assert member.steps()[:1] == [10]
    assert 10 in member.states()
    seen = {
        "step": 20 in member.steps() and equal(member.read_step(20).buffers, weights_of(21)),
        "state": 20 in member.states(),
        "prune": 5 not in member.states(),
        "status": member.status() == Status("completed", 20, stack=(3,)),
        "config": member.has_config() and member.config() == {"lr": 0.1},
        "row": member.rows() == [{"step": 10}, ROW],
        "pair": cohort.pairs.read(KEY, LABEL) == [{"value": 0.1}],
    }
    assert seen["status"] or member.status() == Status("running", 10)
    assert seen["row"] or member.rows() == [{"step": 10}]
    return seen[writer]


def undisturbed(tmp_path: Path, writer: str) -> tuple[list[str], dict[str, bytes]]:
    """The calls that the writer makes, and what is there when it is done."""
    cohort = prepare(tmp_path / "undisturbed" / "dyck", writer)
    calls = calls_of(lambda: WRITERS[writer](cohort))
    assert check_whole(cohort, writer)
    return calls, snapshot(cohort.folder)


def check_rerun(cohort: Cohort, writer: str, done: dict[str, bytes], seen: bool) -> None:
    """Sweeping and doing it again gives what would have been there without the fault."""
    cohort.sweep()
    if writer != "row":
        WRITERS[writer](cohort)
        assert snapshot(cohort.folder) == done
    else:  # a log repeats what is written again
        WRITERS[writer](cohort)
        assert cohort.member(3).rows() == [{"step": 10}, *[ROW] * (2 if seen else 1)]


@pytest.mark.parametrize("writer", WRITERS)
def test_killed_at_every_call(tmp_path: Path, writer: str) -> None:
    calls, done = undisturbed(tmp_path, writer)
    template = prepare(tmp_path / "template" / "dyck", writer).folder
    visible = set()
    for index, fault in itertools.product(range(len(calls)), [kill_before, kill_amid, kill_after]):
        if fault is kill_amid and calls[index] != "write":
            continue
        folder = tmp_path / f"{index}-{fault.__name__}" / "dyck"
        if template.exists():
            shutil.copytree(template, folder)
        cohort = Cohort(folder, IDENTITY)

        def act(cohort: Cohort = cohort, index: int = index, fault: Callable[..., None] = fault) -> None:
            with at_call(index, fault):
                WRITERS[writer](cohort)

        assert in_child(act) == KILLED
        visible.add(seen := check_whole(cohort, writer))
        check_rerun(cohort, writer, done, seen)
        assert drafts(folder) == []
        shutil.rmtree(folder.parent)
    assert visible == {False, True}  # kills both before and after the moment at which it counts


def refusal(act: Callable[[], object], index: int, number: int) -> Exception | None:
    """The error of ours that the system's error at one call became; any other error is a failure."""
    try:
        with at_call(index, failing(number)):
            act()
    except (RunError, RequestError) as error:
        return error
    return None


def check_clean(error: Exception, folder: Path, call: str, number: int) -> None:
    """One line that names a place; of the kind that the call and the reason make it."""
    assert str(folder) in str(error)
    assert "\n" not in str(error)
    assert call in READING or not isinstance(error, UnreadableError)
    if isinstance(error, WriteError):
        assert isinstance(error, NoSpaceError) == (number == errno.ENOSPC)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("writer", WRITERS)
def test_refused_at_every_call(tmp_path: Path, writer: str, number: int) -> None:
    calls, done = undisturbed(tmp_path, writer)
    refused = 0
    for index, call in enumerate(calls):
        cohort = prepare(tmp_path / str(index) / "dyck", writer)
        error = refusal(lambda cohort=cohort: WRITERS[writer](cohort), index, number)
        if error is not None:
            refused += 1
            check_clean(error, tmp_path, call, number)
        seen = check_whole(cohort, writer)
        # Only what could not be removed stays, and it waits for this process to end.
        assert drafts(cohort.folder) == [] or call.startswith(("remove", "stat")) or writer == "prune"
        for name in drafts(cohort.folder):
            shutil.rmtree(path) if (path := cohort.folder / name).is_dir() else path.unlink()
        check_rerun(cohort, writer, done, seen)
    assert refused > 0


def test_every_call_is_covered(tmp_path: Path) -> None:
    """The opposite of trusting the list of writers: together they make every call that changes anything."""
    made = {call for writer in WRITERS for call in undisturbed(tmp_path / writer, writer)[0]}
    changing = {
        "make_folder",
        "open_new",
        "open_append",
        "write",
        "sync",
        "close",
        "rename",
        "replace",
        "link",
    }
    assert changing | {"remove_file", "remove_tree", "open_folder"} <= made <= set(CALLS)


FILE = ["open_new", "write", "sync", "close"]
FOLDER = ["open_folder", "sync", "close"]


def test_all_is_synced_before_it_gets_its_name(cohort: Cohort, member: Member) -> None:
    """What a power loss would show cannot be tested here; the order that prevents it can."""
    published = calls_of(lambda: WRITERS["step"](cohort))
    expected = ["make_folder", *FILE, *FILE, *FILE, *FOLDER, "rename", *FOLDER]  # weights, buffers, manifest
    assert published[-len(expected) :] == expected
    again = calls_of(lambda: WRITERS["step"](cohort))
    assert again[-3:] == FOLDER  # whoever published it may have been killed before this
    assert "rename" not in again
    replaced = [*FILE, "replace", *FOLDER]
    assert calls_of(lambda: WRITERS["status"](cohort))[-len(replaced) :] == replaced
    removed = calls_of(lambda: member.prune_states(keep=1) or publication.remove(member.folder / "steps"))
    assert removed[-6:-2] == ["rename", *FOLDER]


def test_the_manifest_is_written_last(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = files.open_new
    monkeypatch.setattr(files, "open_new", lambda path: opened.append(path.name) or original(path))
    WRITERS["step"](cohort)
    assert opened == ["weights.safetensors", "buffers.safetensors", "manifest.json"]


def test_partial_write_on_a_full_disk(cohort: Cohort) -> None:
    """Half of the bytes are written before the disk is full."""
    member = cohort.member(0)
    member.set_status(Status("running", 1))
    room = iter([True, False])

    def full(descriptor: int, data: memoryview) -> int:
        if next(room, False):
            return original(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    original = files.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write", full)
        with pytest.raises(
            NoSpaceError, match=r"step-00000001 could not be written: No space left on device"
        ):
            member.publish_step(1, weights_of(1), {})
    assert member.steps() == []
    assert drafts(cohort.folder) == []
    assert member.status() == Status("running", 1)
    member.publish_step(1, weights_of(1), {})
    assert equal(member.read_step(1).weights, weights_of(1))


def test_short_writes_are_continued(cohort: Cohort) -> None:
    original = files.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write", lambda descriptor, data: original(descriptor, data[:7]))
        cohort.member(0).publish_step(1, weights_of(1), {})
    assert equal(cohort.member(0).read_step(1).weights, weights_of(1))


def test_file_systems_without_links_or_folder_sync(tmp_path: Path) -> None:
    """Where links do not exist and folders cannot be synced, what is made is whole all the same."""
    unable = {"link": failing(errno.EPERM)}

    def without(name: str, call: Callable[..., object]) -> Callable[..., object]:
        return lambda *arguments: unable[name](call, arguments) if name in unable else call(*arguments)

    with replaced_calls(without):
        cohort = Cohort.create(tmp_path / "dyck", IDENTITY)
        cohort.member(0).write_config({"lr": 1})
        with pytest.raises(RequestError):
            cohort.member(0).write_config({"lr": 2})
    assert Cohort.open(cohort.folder).member(0).config() == {"lr": 1}
    assert drafts(cohort.folder) == []


def test_a_missing_root_is_made(tmp_path: Path) -> None:
    publish(tmp_path / "a" / "b" / "c", {"rows.jsonl": b""}, {})
    assert (tmp_path / "a" / "b" / "c" / "manifest.json").exists()


def test_a_torn_row_is_marked_and_passed_over(cohort: Cohort) -> None:
    member = cohort.member(0)
    member.append_row({"step": 1})
    log = member.folder / "rows.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 2, "lo')
    assert member.rows() == [{"step": 1}]
    member.append_row({"step": 2})
    member.append_row({"step": 3, "loss": float("nan"), "all": [float("inf"), 1.5]})
    assert member.rows() == [{"step": 1}, {"step": 2}, {"step": 3, "loss": None, "all": [None, 1.5]}]
    log.write_bytes(log.read_bytes().replace(b'{"step":1}', b'{"step":1'))
    with pytest.raises(RunError, match=r"rows\.jsonl:1 is not JSON"):
        member.rows()
