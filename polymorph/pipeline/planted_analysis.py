"""A planted cohort analysed like a trained one: the same studies, claims and page, the truth being known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from polymorph.errors import RequestError, RunError
from polymorph.evidence.evidence import check_size, planted_evidence
from polymorph.evidence.pairs import PairLabel, pairs_of
from polymorph.evidence.planted import Planted
from polymorph.evidence.rows import Row
from polymorph.pipeline.rows_version import rows_version
from polymorph.report.bundle import bundle
from polymorph.report.data import MemberSummary, ReportData
from polymorph.store import digest
from polymorph.studies.claims import claims_of
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables

FOREIGN = tuple(f"study {name}" for name, study in STUDIES.items() if not study.is_of("planted"))
"""What a planted cohort cannot have: it was not trained, has one site, and is activations without a model."""


@dataclass
class PlantedAnalysis:
    """One analysis of one planted cohort; `folder` is where its results are kept."""

    planted: Planted
    folder: Path
    studies: Sequence[str]
    scheme: str = "all"
    memory_gib: float = 8.0
    provenance: Mapping[str, str] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        members = self.planted.config.members
        if members < 2:
            raise RequestError(
                f"planted.members={members}: an analysis compares members and needs at least two"
            )
        self.pairs: list[PairLabel] = pairs_of([(seed, 0) for seed in range(members)], self.scheme)
        check_size(members, len(self.pairs), self.planted.config.d, self.memory_gib)
        self.evidence = planted_evidence(self.planted, self.scheme)

    @property
    def name(self) -> str:
        return self.planted.name

    @property
    def d(self) -> int:
        return self.planted.config.d

    @property
    def fingerprints(self) -> dict[str, str]:
        return {"planted": digest(self.planted.identity())}

    def key(self) -> str:
        """Digest of everything that the results follow from."""
        choice = {"studies": list(self.studies), "pairs": self.scheme, "provenance": dict(self.provenance)}
        return digest({"planted": self.planted.identity(), "version": rows_version(*self.studies), **choice})

    def run(self) -> tuple[dict[str, bytes], ReportData, list[Row], int]:
        """The files, what they show, the rows of the ladder, and how many pairs were computed."""
        tables, refused = study_tables(self.evidence, self.studies, self.memory_gib)
        self.left_out += [entry for entry in refused if entry[0] not in FOREIGN]
        if not tables:
            raise RunError("; ".join(f"{name}: {reason}" for name, reason in refused))
        report = ReportData(
            cohort=self.planted.name,
            task=self.planted.identity(),
            architecture={},
            members=[MemberSummary(seed, "planted", None) for seed, _ in self.evidence.ends],
            left_out=self.left_out,
            history=pl.DataFrame(),
            provenance={**self.provenance, "table files": ", ".join(f"{name}.parquet" for name in tables)},
            tables=tables,
            claims=claims_of(tables),
        )
        ladder = tables.get("ladder", pl.DataFrame())
        rows = [Row.from_dict(row) for row in ladder.iter_rows(named=True)]
        return bundle(report, self.studies), report, rows, len(self.pairs)
