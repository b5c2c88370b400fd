"""Cohorts by their names below a folder."""

from pathlib import Path

from polymorph.checks import nearest
from polymorph.errors import RequestError
from polymorph.store import files, safe_read
from polymorph.store.cohort import COHORT, Cohort


def cohorts_below(root: Path | str) -> list[Path]:
    """The folders of the cohorts in `root`, by name."""
    folder = files.real(Path(root))
    names = files.names(folder) if safe_read.is_folder(folder) else []
    return [Path(root) / name for name in names if safe_read.exists(folder / name / COHORT)]


def find_cohort(name: str, root: Path | str) -> Cohort:
    """The cohort of this name below `root`, or in this folder; `RequestError` names the nearest there is."""
    for folder in (Path(root) / name, Path(name)):
        if safe_read.exists(folder / COHORT):
            return Cohort.open(folder)
    there = [path.name for path in cohorts_below(root)]
    known = ", ".join(there) or "none"
    raise RequestError(
        f"cohort={name}{nearest(name, there)}: neither a cohort in {root} (there: {known}) nor a folder"
    )
