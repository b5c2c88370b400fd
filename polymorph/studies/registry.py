"""Every study, in the order of the page: the folders of this package, and of what `POLYMORPH_STUDIES` names."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import polars as pl

from polymorph import studies
from polymorph.evidence.rows import COLUMNS
from polymorph.studies.study import Columns, Study


def _found() -> dict[str, Study]:
    found: list[Study] = [import_module(f"{studies.__name__}.{name}").STUDY for name in _folders()]
    return {study.name: study for study in sorted(found, key=lambda study: (study.place, study.name))}


def _folders() -> list[str]:
    """Names of the studies' folders; `ValueError` where two have one name, for only the first would be read."""
    names = [info.name for path in studies.__path__ for info in iter_modules([path]) if info.ispkg]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"there are two studies with the name {twice[0]}, in {', '.join(studies.__path__)}")
    return names


STUDIES = _found()


def add_studies(folder: Path) -> None:
    """Take in the studies whose folders are below this one, for this process, wherever `STUDIES` is read."""
    if str(folder) not in studies.__path__:
        studies.__path__.append(str(folder))
    found = _found()
    STUDIES.clear()
    STUDIES.update(found)


def schema_of(study: str) -> Columns:
    """The columns of a study's table."""
    return COLUMNS | dict(STUDIES[study].columns)


def table_of(tables: Mapping[str, pl.DataFrame], study: str) -> pl.DataFrame:
    """The rows of a study, of those about all steps at the last ones; no rows where it was not made."""
    return STUDIES[study].table(tables)
