"""Rows of studies from before: of each study, what they follow from, so that only what has changed is computed.

The tables lie among the results of an analysis. Its record says by which key each was made; one that is not as it was
written, or of another key, is made again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from polymorph.evidence.rows import read_table
from polymorph.store import CorruptError, Results


@dataclass(frozen=True)
class StudyRows:
    """The rows of a study, or why there are none; `key` is the digest of everything that they follow from."""

    key: str
    table: pl.DataFrame | None
    refused: str = ""
    problems: tuple[str, ...] = ()
    """Why SAEs that it would have read could not be."""

    def record(self) -> dict[str, Any]:
        """What is said of it beside the results."""
        return {"key": self.key, "refused": self.refused, "problems": list(self.problems)}


class StudyCache(Protocol):
    def read(self, study: str, key: str) -> StudyRows | None:
        """The rows of a study that follow from this key; None where they have to be made."""
        ...


class _Nothing:
    def read(self, study: str, key: str) -> StudyRows | None:
        return None


NOTHING: StudyCache = _Nothing()


@dataclass(frozen=True)
class ResultsCache:
    """The tables among the results of an analysis."""

    results: Results

    def read(self, study: str, key: str) -> StudyRows | None:
        said = self.results.studies().get(study)
        if said is None or said.get("key") != key:
            return None
        problems = tuple(said["problems"])
        if said["refused"]:
            return StudyRows(key, None, said["refused"], problems)
        try:
            return StudyRows(key, read_table(self.results.read(file_of(study))), "", problems)
        except (CorruptError, ValueError):
            return None


def file_of(study: str) -> str:
    """The name of its table."""
    return f"{study}.parquet"


def records(rows: Mapping[str, StudyRows]) -> dict[str, dict[str, Any]]:
    """What the record of an analysis says of its studies."""
    return {name: own.record() for name, own in rows.items()}
