"""What the tables say of one site: the rows that its claims are decided by."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from polymorph.evidence.rows import ON_SUPPORT
from polymorph.verdicts.estimate import Estimate, estimate

WHOLE = "whole"

Tables = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Site:
    """The rows of one site that its verdict is decided by; empty where a study was not asked for."""

    name: str
    ladder: pl.DataFrame
    support: pl.DataFrame
    pairing: pl.DataFrame
    haar: pl.DataFrame

    @classmethod
    def of(cls, name: str, tables: Tables) -> "Site":
        empty = pl.DataFrame(schema={"site": pl.String})
        parts = (tables.get(study, empty) for study in ("ladder", "support", "pairing", "haar"))
        return cls(name, *(part.filter(pl.col("site") == name) for part in parts))

    def gap(self, metric: str, basis: str = WHOLE) -> Estimate | None:
        """A difference of R² between two rungs, over all of R or on its determined support."""
        frame = self.ladder if basis == WHOLE else self.support
        if frame.is_empty():
            return None
        rows = frame.filter((pl.col("metric") == metric) & (pl.col("role") == "estimate"))
        return estimate(rows if basis == WHOLE else rows.filter(pl.col("convention") == ON_SUPPORT))

    def r2(self, name: str, role: str = "estimate") -> Estimate | None:
        rows = self.ladder.filter(
            pl.col("metric").eq("r2") & pl.col("map").eq(name) & pl.col("role").eq(role)
        )
        return estimate(rows)

    @property
    def ceiling(self) -> float | None:
        """What an affine map reaches between neighbouring late checkpoints of one member; None without those."""
        found = self.r2("affine", "ceiling")
        return None if found is None else found.value

    @property
    def dimensions(self) -> tuple[int, int] | None:
        """(r, d), with r the least of all pairs; None if it was not measured."""
        if self.support.is_empty():
            return self._dimensions_of_the_ladder
        rows = self.support.filter(pl.col("role") == "estimate")
        r, d = (
            rows.filter(pl.col("metric") == name)["value"] for name in ("determined_dimension", "dimension")
        )
        return int(r.min()), int(d.max())  # type: ignore[arg-type]

    @property
    def _dimensions_of_the_ladder(self) -> tuple[int, int] | None:
        """The same without the study of the support: the scale that the ladder states for ‖R − I‖ is √(2d)."""
        rows = self.ladder.filter(pl.col("role") == "estimate")
        r, scale = (
            rows.filter(pl.col("metric") == name)["value"]
            for name in ("determined_dimension", "frobenius_haar_scale")
        )
        if r.is_empty() or scale.is_empty():
            return None
        return int(r.min()), round(float(scale.max()) ** 2 / 2)  # type: ignore[arg-type]

    @property
    def reflections(self) -> tuple[int, int]:
        """Pairs with det R = −1, and pairs."""
        rows = self.ladder.filter(pl.col("metric").eq("determinant") & pl.col("role").eq("estimate"))
        rows = rows.filter(pl.col("source") < pl.col("target"))
        return int((rows["value"] < 0).sum()), rows.height

    def p_value(self, study: str) -> float | None:
        """Of the test for all members together that belongs to the primary family."""
        frame = self.pairing if study == "pairing" else self.haar
        if frame.is_empty():
            return None
        rows = frame.filter(pl.col("metric").eq("p_value") & pl.col("source").is_null())
        if study == "haar":
            rows = rows.filter(pl.col("statistic") == "registered").sort("law", descending=True)
        return None if rows.is_empty() else float(rows["value"][0])
