"""Planted cohorts under the studies, and settings that nobody chose."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from torch import Tensor

from polymorph.alignment.fit import orthogonal
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import pairs_of
from polymorph.evidence.planted import SITE, Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.studies.claims import claims_of
from polymorph.studies.tables import study_tables
from polymorph.verdicts.claim import Claim

DECIDING = ("ladder", "support", "pairing", "haar")
SMALL = {"d": 16, "members": 3, "documents": 256, "tokens": 16}


@dataclass(frozen=True)
class Analysed:
    """What the studies say of one planted cohort."""

    planted: Planted
    evidence: Evidence
    tables: Mapping[str, pl.DataFrame]
    claims: Mapping[str, Claim]
    """By the part of the id before the site."""

    @property
    def verdict(self) -> str:
        return self.claims["verdict"].verdict

    @property
    def isometry(self) -> Claim:
        return self.claims["isometry"]

    @property
    def haar(self) -> str:
        return self.claims["haar"].verdict

    @property
    def weights(self) -> Tensor:
        """The fitted orthogonal matrices [pairs d d]."""
        return orthogonal(self.evidence.at(SITE).fit.total()).weight

    def values(self, study: str, metric: str, **about: Any) -> list[float]:
        """Of estimates about pairs, or as `about` says; `None` means that the column is empty."""
        rows = self.tables[study].filter(pl.col("metric") == metric)
        for column, value in ({"role": "estimate"} | about).items():
            rows = rows.filter(pl.col(column).is_null() if value is None else pl.col(column) == value)
        return rows["value"].to_list()

    def p_value(self, statistic: str) -> float:
        """Of a statistic of R under Haar, with the estimation repeated."""
        (p,) = self.values("haar", "p_value", statistic=statistic, law="refit")
        return p


def analysed(kind: str, studies: Sequence[str] = DECIDING, **settings: Any) -> Analysed:
    planted = Planted(kind, PlantedConfig(**(SMALL | settings)))
    ends = [(member, 0) for member in range(planted.config.members)]
    evidence = Evidence(planted.name, ends, pairs_of(ends), planted, planted.config.seed)
    tables, refused = study_tables(evidence, studies)
    assert not refused
    claims = {claim.kind: claim for claim in claims_of(tables)}
    return Analysed(planted, evidence, tables, claims)


def draws(name: str, n: int, **choices: Sequence[Any]) -> list[dict[str, Any]]:
    """n settings: a seed, and one of the choices of every key; always the same ones."""
    source = random.Random(f"unseen {name}")
    return [
        {"seed": source.randrange(2**32)} | {key: source.choice(values) for key, values in choices.items()}
        for _ in range(n)
    ]
