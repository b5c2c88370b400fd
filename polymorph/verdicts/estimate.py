"""A statistic of a cohort from its rows, with an interval for other documents and other seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import polars as pl
from scipy.stats import t as student

from polymorph.alignment.jackknife import CONFIDENCE


@dataclass(frozen=True)
class Estimate:
    """The mean over directed pairs; `low` and `high` are None where the rows have no intervals.

    `pairs` holds the interval of every directed pair, for its documents alone.
    """

    value: float
    low: float | None
    high: float | None
    pairs: tuple[tuple[float, float], ...] = ()

    def above(self, threshold: float) -> bool | None:
        """Whether the statistic is above the threshold; None where that is not settled.

        Settled where every pair lies on the same side with its whole interval, or else where the interval of
        the mean over seeds does. A mean alone would not do: pairs that are all far above, by different
        amounts, make a wide interval.
        """
        if self.low is None or self.high is None:
            return None
        if (agreed := self.unanimous(threshold)) is not None:
            return agreed
        return True if self.low > threshold else False if self.high <= threshold else None

    def unanimous(self, threshold: float) -> bool | None:
        """Whether every pair is above with its whole interval, or none is; None where pairs differ."""
        if self.pairs and all(low > threshold for low, _ in self.pairs):
            return True
        return False if self.pairs and all(high <= threshold for _, high in self.pairs) else None

    def below(self, ceiling: float) -> "Estimate":
        """ceiling − this."""
        low, high = (None if end is None else ceiling - end for end in (self.high, self.low))
        return Estimate(
            ceiling - self.value, low, high, tuple((ceiling - b, ceiling - a) for a, b in self.pairs)
        )


def estimate(rows: pl.DataFrame) -> Estimate | None:
    """The mean of the rows' values, one a directed pair; None without rows.

    Half the width of the interval is √(documents² + seeds²). Documents: the mean half width of the rows,
    which is that of their mean if their errors go together, as those of pairs with a common member do. Seeds:
    Student's t times the standard error of the jackknife that leaves out one seed with all its pairs; the
    unit is the seed, because pairs share seeds. With two seeds nothing is known of other seeds, and the interval is
    for these two; a seed that every pair has (`pairs=anchor`) cannot be left out, and the interval is for that one.
    """
    if rows.is_empty():
        return None
    value = mean(rows["value"])
    seeds = sorted(set(rows["source"]) | set(rows["target"]))
    if rows["low"].null_count():
        return Estimate(value, None, None)
    documents = mean((rows["high"] - rows["low"]) / 2)
    half = math.hypot(documents, _seed_half_width(rows, seeds))
    return Estimate(value, value - half, value + half, tuple(zip(rows["low"], rows["high"], strict=True)))


def _seed_half_width(rows: pl.DataFrame, seeds: Sequence[int]) -> float:
    """A seed that takes part in every pair cannot be left out: the interval is then for that one."""
    if len(seeds) < 3:
        return 0.0
    parts = [rows.filter((pl.col("source") != seed) & (pl.col("target") != seed))["value"] for seed in seeds]
    without = [mean(part) for part in parts if len(part)]
    n = len(without)
    if n < 2:
        return 0.0
    centre = mean(without)
    error = math.sqrt((n - 1) / n * sum((value - centre) ** 2 for value in without))
    return float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
