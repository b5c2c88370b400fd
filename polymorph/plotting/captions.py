"""The sentences of every caption that say how much data stands behind a figure, and what R² is."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polymorph.plotting.wording import between, counted, listed, number

R2_DEFINITION = (
    "R² = 1 − Σ‖y−ŷ‖² / Σ‖y−ȳ‖², with ȳ the mean of each dimension; "
    "every map is fitted on the fit split and scored on the eval split."
)
INTERVAL = (
    "Intervals are 95 %, by a delete-one-block jackknife over documents of the eval split with the map held "
    "fixed: they hold the uncertainty of the score, not that of the fit, and not that between seeds."
)


@dataclass(frozen=True)
class Pairs:
    """The seeds that stand in pairs, and the pairs, each as (source, target)."""

    seeds: tuple[int, ...]
    directed: int
    unordered: int

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "Pairs":
        """Those of the estimates of a table; ceilings, controls and rows about all members add none."""
        estimates = frame.filter(pl.col("role") == "estimate").select("source", "target").drop_nulls()
        pairs = set(estimates.unique().iter_rows())
        seeds = tuple(sorted({seed for pair in pairs for seed in pair}))
        return cls(seeds, len(pairs), len({tuple(sorted(pair)) for pair in pairs}))

    def __str__(self) -> str:
        both = f", {self.directed:,} directed" if self.directed > self.unordered else ""
        pairs = counted(self.unordered, "unordered pair")
        return f"{counted(len(self.seeds), 'seed')} ({listed(self.seeds)}), {pairs}{both}"


def data_behind(frame: pl.DataFrame) -> str:
    """Seeds, pairs, documents and tokens of both splits, as a sentence."""
    return f"{Pairs.of(frame)}; fit split: {_split(frame, 'fit')}; eval split: {_split(frame, 'eval')}."


def study_behind(frame: pl.DataFrame, ladder: pl.DataFrame, splits: Sequence[str] = ()) -> str:
    """As `data_behind`, for the splits that a study used; what its rows do not count, the ladder's do.

    Both have read the same tokens of the same members, unless a row counts its own. `splits` are those that
    its maps were fitted and scored on, if rows of one do not stand in the table.
    """
    pairs = Pairs.of(frame) if Pairs.of(frame).directed else Pairs.of(ladder)
    splits = splits or [split for split in ("fit", "eval") if split in frame["split"].to_list()]
    counts = [f"{split} split: {_split(_counting(frame, ladder, split), split)}" for split in splits]
    return "; ".join([str(pairs), *counts]) + "."


def _counting(frame: pl.DataFrame, ladder: pl.DataFrame, split: str) -> pl.DataFrame:
    """The table whose rows of the split have numbers of tokens."""
    own = frame.filter((pl.col("split") == split) & pl.col("n_tokens").is_not_null())
    return ladder if own.is_empty() and not ladder.is_empty() else frame


def steps_behind(frame: pl.DataFrame) -> str:
    """`step 60,000`, or the range where the last steps of pairs differ."""
    estimates = frame.filter(pl.col("role") == "estimate")
    steps = sorted({*estimates["source_step"].drop_nulls(), *estimates["target_step"].drop_nulls()})
    if not steps:
        return "the only state recorded"
    one = f"step {steps[-1]:,}"
    return one if len(steps) == 1 else f"each pair's last steps ({steps[0]:,} to {steps[-1]:,})"


def participation(frame: pl.DataFrame, site: str) -> str | None:
    """The medians of the participation ratios at a site, as text; None where there are none."""
    ratios = frame.filter(pl.col("metric").str.starts_with("participation_ratio") & (pl.col("site") == site))
    values = ratios.filter(pl.col("role") == "estimate")["value"]
    return None if values.is_empty() else number(float(values.median()), 1)  # type: ignore[arg-type]


def _split(frame: pl.DataFrame, split: str) -> str:
    rows = frame.filter((pl.col("split") == split) & (pl.col("role") == "estimate"))
    if rows.is_empty():
        return "no rows"
    counts = [between(rows[f"n_{noun}s"].drop_nulls().to_list(), noun) for noun in ("document", "token")]
    return ", ".join(counts)
