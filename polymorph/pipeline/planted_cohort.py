"""A planted cohort as a source of an analysis: the same studies, claims and page, the truth being known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polymorph.errors import RequestError
from polymorph.evidence.evidence import BLOCKS, Evidence, check_size, planted_evidence
from polymorph.evidence.pairs import PairLabel, pairs_of
from polymorph.evidence.planted import Planted
from polymorph.pipeline.source import Facts, InMemory, Reasons
from polymorph.report.data import MemberSummary
from polymorph.store import digest
from polymorph.studies.study import Kind, Study


@dataclass
class PlantedCohort(InMemory):
    """Planted members, and the pairs of a scheme; `folder` is where results are kept."""

    planted: Planted
    folder: Path
    scheme: str = "all"
    memory_gib: float = 8.0
    left_out: Reasons = field(default_factory=list)
    kind: Kind = "planted"

    def __post_init__(self) -> None:
        members = self.planted.config.members
        if members < 2:
            raise RequestError(
                f"planted.members={members}: an analysis compares members and needs at least two"
            )
        self.pairs: list[PairLabel] = pairs_of([(seed, 0) for seed in range(members)], self.scheme)
        check_size(members, len(self.pairs), self.d, self.memory_gib)

    @property
    def name(self) -> str:
        return self.planted.name

    @property
    def d(self) -> int:
        return self.planted.config.d

    @property
    def fingerprints(self) -> dict[str, str]:
        return {"planted": digest(self.planted.identity())}

    def identity(self, study: Study) -> Mapping[str, Any]:
        return {"planted": self.planted.identity(), "pairs": self.scheme, "blocks": BLOCKS}

    def evidence(self) -> Evidence:
        return planted_evidence(self.planted, self.scheme)

    def facts(self) -> Facts:
        members = [MemberSummary(seed, "planted", None) for seed in range(self.planted.config.members)]
        return Facts(self.planted.identity(), {}, members)
