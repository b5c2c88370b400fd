"""What an analysis asks of the members that it is about: cohorts on disk, planted ones and given activations answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import PairLabel
from polymorph.pipeline.pair_cache import Found
from polymorph.report.data import MemberSummary
from polymorph.studies.study import Kind, Options, Study

Reasons = list[tuple[str, str]]
"""Who is left out, and why."""


@dataclass(frozen=True)
class Facts:
    """What a page says of members beside their tables."""

    task: Mapping[str, Any]
    architecture: Mapping[str, Any]
    members: Sequence[MemberSummary]
    history: pl.DataFrame = field(default_factory=pl.DataFrame)
    headline: str = "depth"
    notes: Sequence[str] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """Members, the pairs among them that are compared, and what studies read of both."""

    @property
    def kind(self) -> Kind: ...

    @property
    def name(self) -> str: ...

    @property
    def d(self) -> int:
        """Dimensions of the activations."""
        ...

    @property
    def folder(self) -> Path:
        """Below which results are kept."""
        ...

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Of what all members share, by part."""
        ...

    @property
    def pairs(self) -> Sequence[PairLabel]: ...

    @property
    def left_out(self) -> Reasons:
        """Who is left out, and why."""
        ...

    def settle(self) -> None:
        """Leave out what cannot be read or compared; what is below speaks of the rest."""
        ...

    def identity(self, study: Study) -> Mapping[str, Any]:
        """What decides the rows of a study, beside the study itself."""
        ...

    @property
    def options(self) -> Mapping[str, Options]:
        """By study, what is asked of it."""
        ...

    def saes(self) -> Mapping[str, str]:
        """What decides the rows of studies that read SAEs: every SAE's digest, or why it cannot be read."""
        ...

    def page_identity(self) -> Mapping[str, Any]:
        """What a page says that follows from no rows."""
        ...

    def ladder(self) -> Found | None:
        """The rows of the ladder where they are cached by pair; None where they are made as any other study's."""
        ...

    def evidence(self) -> Evidence | None:
        """What studies read; None without a pair that could be compared."""
        ...

    def facts(self) -> Facts: ...


class InMemory:
    """What every source says whose members are no files: nothing is damaged, asked for, trained, or cached by pair."""

    def settle(self) -> None:
        """Nothing of it can be damaged."""

    @property
    def options(self) -> Mapping[str, Options]:
        return {}

    def saes(self) -> Mapping[str, str]:
        return {}

    def page_identity(self) -> Mapping[str, Any]:
        return {}

    def ladder(self) -> Found | None:
        return None
