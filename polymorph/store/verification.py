"""Every file of a cohort read and held against the digest under which it was published."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from polymorph.errors import RequestError, RunError
from polymorph.store import files, safe_read
from polymorph.store.cohort import Cohort
from polymorph.store.manifest import MANIFEST
from polymorph.store.member import Member
from polymorph.store.results import RECORD, Results
from polymorph.store.streamed_files import read_streamed

SHELVES = ("steps", "state", "best", "saes")
"""Of a member; every folder without folders in it is published there."""
OF_COHORTS = ("pairs", "ported", "text", "unfinished")
"""The same, of what members share."""


@dataclass(frozen=True)
class Finding:
    """Something that was looked at, by its path in the cohort; `problem` says what is wrong with it, if anything."""

    path: Path
    problem: str | None = None


def verify(cohort: Cohort) -> Iterator[Finding]:
    """Everything that is published, the records of the members, and the results of analyses as they were written."""
    for member in cohort.members():
        yield from _records(cohort, member)
        for shelf in SHELVES:
            yield from _published(cohort, member.folder / shelf)
    for name in OF_COHORTS:
        yield from _published(cohort, cohort.folder / name)
    yield from _results(cohort)


def _records(cohort: Cohort, member: Member) -> Iterator[Finding]:
    for name, read in (("status.json", member.status), ("rows.jsonl", member.rows)):
        yield _looked_at(cohort, member.folder / name, read)
    if member.has_config():
        yield _looked_at(cohort, member.folder / "config.json", member.config)


def _published(cohort: Cohort, folder: Path) -> Iterator[Finding]:
    """What is published in the folder or below it."""
    if not safe_read.is_folder(folder):
        return
    names = [name for name in files.names(folder) if not name.startswith(".")]
    folders = [folder / name for name in names if safe_read.is_folder(folder / name)]
    if MANIFEST in names:
        yield _looked_at(cohort, folder, lambda: read_streamed(folder, cohort.folder))
    elif names and not folders:
        yield Finding(folder.relative_to(cohort.folder), f"{MANIFEST} is missing")
    else:
        for below in folders:
            yield from _published(cohort, below)


def _results(cohort: Cohort) -> Iterator[Finding]:
    analyses = cohort.folder / "analysis"
    for name in files.names(analyses) if safe_read.is_folder(analyses) else ():
        record = analyses / name / RECORD
        if not safe_read.exists(record):
            continue
        results = Results(cohort.folder, name)
        listed = _looked_at(cohort, record, results.written)
        yield listed
        for file in results.written() if listed.problem is None else ():
            yield _looked_at(cohort, record.parent / file, partial(results.read, file))


def _looked_at(cohort: Cohort, path: Path, read: Callable[[], object]) -> Finding:
    try:
        read()
    except (RunError, RequestError) as error:
        return Finding(path.relative_to(cohort.folder), str(error))
    return Finding(path.relative_to(cohort.folder))
