"""A cohort reduced: its completed members with some of their checkpoints, and logs without most training rows.

The copy is a cohort folder that opens like any other. Published folders are copied byte for byte, so their digests
still verify. The log keeps evaluations, starts and ends, and the training loss of every 1,000th step.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polymorph.errors import RequestError, RunError
from polymorph.store import durable, files, safe_read
from polymorph.store.canonical_json import canonical
from polymorph.store.cohort import COHORT, Cohort
from polymorph.store.member import Member
from polymorph.store.names import step_name
from polymorph.store.process_liveness import draft_name
from polymorph.store.publication import LARGEST_FILE

TRAIN_EVERY = 1000
"""Steps between two training rows that are kept."""
DIGITS = 6
"""Significant digits of the numbers of a log."""

Room = Callable[[int, str], None]
"""Called with the bytes that come next and what they are; refuses by raising."""


def copy_reduced(
    cohort: Cohort, target: Path, steps: Sequence[int], room: Room = lambda more, what: None
) -> list[str]:
    """Bring all completed members to `target/<cohort>`, with these steps, the last and the best.

    The paths that are new, below `target`; what is there whole is left alone.
    """
    finished = completed(cohort)
    if not finished:
        return []
    folder = target / cohort.name
    if files.real(folder) == files.real(cohort.folder):
        raise RequestError(f"{target}: the cohort itself lies there; give another folder")
    durable.make_parents(folder / "members")
    new = create(folder / COHORT, _read(cohort.folder / COHORT), target, room)
    there = Cohort.open(folder)
    there.sweep()
    for member in finished:
        wanted = kept_steps(member, steps)
        if not is_copied(there.member(member.seed), wanted):
            new.append(_copy_member(member, there, target, wanted, room))
    return new


def completed(cohort: Cohort) -> list[Member]:
    """The members that have come to their end."""
    return [member for member in cohort.members() if _is_completed(member)]


def _is_completed(member: Member) -> bool:
    status = member.status()
    return status is not None and status.state == "completed"


def kept_steps(member: Member, steps: Sequence[int]) -> list[int]:
    """Those of `steps` at which there is a checkpoint, the last and the best."""
    there = member.steps()
    return [step for step in there if step in {*steps, there[-1], member.best_step()}]


def is_copied(member: Member, steps: Sequence[int]) -> bool:
    """Whether the copy of a member is there whole, with these checkpoints; every digest is verified."""
    try:
        there = [member.read_step(step).step for step in member.steps()]
        return _is_completed(member) and bool(member.rows()) and there == list(steps)
    except RunError:
        return False


def create(path: Path, data: bytes, target: Path, room: Room) -> list[str]:
    """The path below `target`, if the file had to be made."""
    if safe_read.exists(path):
        return []
    room(len(data), path.name)
    durable.create_file(path, data)
    return [str(path.relative_to(target))]


def _copy_member(member: Member, there: Cohort, target: Path, steps: Sequence[int], room: Room) -> str:
    contents = dict(_contents(member, steps))
    room(sum(map(len, contents.values())), member.name)
    folder = there.member(member.seed).folder
    draft = folder.parent / draft_name()
    try:
        files.make_folder(draft)
        for name, data in contents.items():
            durable.make_folders((draft / name).parent, draft)
            durable.write_new(draft / name, data)
        if safe_read.exists(folder):  # part of it was removed or damaged since
            durable.remove(folder)
        durable.rename_new(draft, folder)
    finally:
        durable.drop(draft)
    return str(folder.relative_to(target))


def _contents(member: Member, steps: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """Names below the member's folder, with their bytes."""
    for step in steps:
        member.read_step(step)  # verified before it is copied
        name = f"steps/{step_name(step)}"
        for file in files.names(member.folder / name):
            yield f"{name}/{file}", _read(member.folder / name / file)
    yield "rows.jsonl", b"".join(canonical(row) + b"\n" for row in reduced(member.rows()))
    for name in ("config.json", "status.json"):
        yield name, _read(member.folder / name)


def _read(path: Path) -> bytes:
    return safe_read.read_whole(path, LARGEST_FILE)


def reduced(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The log without most training rows, without what a resumed run repeated, and with rounded numbers."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, row in enumerate(rows):
        kind, step = row.get("kind"), row.get("step", 0)
        if kind == "train" and step % TRAIN_EVERY:
            continue
        key = (kind, step) if kind in ("train", "evaluation") else (kind, step, number)
        kept[key] = _short(row, first=not any(name[0] == "start" for name in kept))
    return list(kept.values())


def _short(row: Mapping[str, Any], first: bool) -> dict[str, Any]:
    if row.get("kind") in ("train", "evaluation"):
        return {name: _rounded(value) for name, value in row.items()}
    if row.get("kind") == "start":
        told = ("kind", "step", "seed", "resumed_from", "code_version", "packages", "python")
        own = dict(row) if first else {name: row[name] for name in told if name in row}
        if isinstance(own.get("cohort"), Mapping):  # where the cohort lay is nobody's concern
            own["cohort"] = {**own["cohort"], "root": "cohorts"}
        return own
    trace = row.get("traceback")
    return {**row, "traceback": str(trace).strip().splitlines()[-1]} if trace else dict(row)


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
