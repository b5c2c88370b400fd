"""What a report is made from: plain facts about a cohort and the tables of its studies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from polymorph.plotting.table_rows import STEPS, completed
from polymorph.studies.registry import schema_of
from polymorph.verdicts.claim import Claim


@dataclass(frozen=True)
class MemberSummary:
    """One member as the report names it; `accuracies` maps a distribution to its last accuracy at one head."""

    seed: int
    state: str
    last_step: int | None
    reason: str | None = None
    accuracies: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """Everything a page shows; the report reads it and fits nothing.

    `ladder` and `angles` are tables of `studies.ladder` and `studies.angles`; `history` has the columns seed,
    step, distribution, head, metric, value. `left_out` pairs who is missing with why. Frames may be empty.
    """

    cohort: str
    task: Mapping[str, Any]
    architecture: Mapping[str, Any]
    members: Sequence[MemberSummary]
    left_out: Sequence[tuple[str, str]]
    ladder: pl.DataFrame
    angles: pl.DataFrame
    history: pl.DataFrame
    provenance: Mapping[str, str]
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Every study that was made, by name; of the ladder, the rows of all steps."""
    claims: Sequence[Claim] = ()
    headline: str = "depth"
    """The head whose accuracies the members have."""
    notes: Sequence[str] = ()
    """How the activations were read, where that is not as they are."""

    @property
    def trained(self) -> bool:
        """Whether there is a training to show: planted members stand at no step, and have nothing to tell."""
        told = (m.last_step is not None or bool(m.reason or m.accuracies) for m in self.members)
        return not self.members or any(told)


def ladder_of(report: ReportData) -> pl.DataFrame:
    """The ladder of a report with all of its columns."""
    return _standing(report, completed(report.ladder, schema_of("ladder")))


def angles_of(report: ReportData) -> pl.DataFrame:
    """The angles of a report with all of their columns."""
    return _standing(report, completed(report.angles, schema_of("angles")))


def _standing(report: ReportData, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows as they are; members that were not trained stand at no step."""
    if report.trained:
        return frame
    return frame.with_columns(pl.lit(None, dtype=pl.Int64).alias(name) for name in STEPS)
