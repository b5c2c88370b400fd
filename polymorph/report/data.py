"""What a report is made from: plain facts about a cohort and the tables of its studies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from polymorph.plotting.table_rows import STEPS, completed
from polymorph.studies.registry import STUDIES, schema_of
from polymorph.verdicts.claim import Claim

LADDER = "ladder"


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

    `tables` holds every study that was made, by name; of the ladder, the rows of all steps. `history` has the
    columns seed, step, distribution, head, metric, value. `left_out` pairs who is missing with why. Frames may be
    empty.
    """

    cohort: str
    task: Mapping[str, Any]
    architecture: Mapping[str, Any]
    members: Sequence[MemberSummary]
    left_out: Sequence[tuple[str, str]]
    tables: Mapping[str, pl.DataFrame]
    history: pl.DataFrame
    provenance: Mapping[str, str]
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

    def table(self, study: str) -> pl.DataFrame:
        """The table of a study with all of its columns; of those about steps, members that were not trained stand at
        none."""
        found = completed(self.tables.get(study, pl.DataFrame()), schema_of(study))
        if self.trained or not STUDIES[study].last_steps_only:
            return found
        return found.with_columns(pl.lit(None, dtype=pl.Int64).alias(name) for name in STEPS)

    @property
    def ladder(self) -> pl.DataFrame:
        """All steps of the ladder, beside which everything else is read."""
        return self.table(LADDER)
