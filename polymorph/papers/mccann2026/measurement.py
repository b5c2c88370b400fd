"""From a selector and the tables of an analysis to numbers, in the paper's convention and in the sound one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.papers.mccann2026.entries import Selector
from polymorph.papers.mccann2026.printed_numbers import SUMMARIES, WITHIN
from polymorph.verdicts.estimate import Estimate, estimate

Tables = Mapping[str, pl.DataFrame]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Measured:
    """The numbers told, how many groups stand behind them, and what stands in for what was asked."""

    told: tuple[float, ...]
    count: int
    instead: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """Why there is no number."""

    reason: str
    study: str | None = None


@dataclass(frozen=True)
class Sound:
    """A number that can bear the claim, and over what its interval is: documents, seeds, both, or nothing."""

    estimate: Estimate
    over: str


@dataclass(frozen=True)
class Chosen:
    """Rows, and what stands in for what was asked."""

    rows: pl.DataFrame
    instead: tuple[str, ...] = ()


def measured(selector: Selector, tables: Tables) -> Measured | Missing:
    """What a selector tells of these tables."""
    groups: dict[Key, float] = {}
    instead: tuple[str, ...] = ()
    for part, combine in _parts(selector):
        chosen = chosen_rows(part, tables)
        if isinstance(chosen, Missing):
            return chosen
        own = _groups(part, chosen.rows)
        instead += tuple(one for one in chosen.instead if one not in instead)
        groups = own if combine is None else _combined(groups, own, combine)
    if not groups:
        return Missing(f"{selector.study}: no row has its counterpart", selector.study)
    told = SUMMARIES[selector.aggregate](list(groups.values()))
    return Measured(tuple(float(one) for one in told), len(groups), instead)


def _parts(selector: Selector) -> Iterator[tuple[Selector, str | None]]:
    yield selector, None
    if selector.less is not None:
        yield selector.less, "less"
    if selector.over is not None:
        yield selector.over, "over"


def _combined(groups: Mapping[Key, float], others: Mapping[Key, float], how: str) -> dict[Key, float]:
    """Groups that both have; a divisor of 0 leaves its group out."""
    both = {key: (own, others[key]) for key, own in groups.items() if key in others}
    if how == "less":
        return {key: own - other for key, (own, other) in both.items()}
    return {key: own / other for key, (own, other) in both.items() if other != 0}


def _groups(selector: Selector, rows: pl.DataFrame) -> dict[Key, float]:
    """The number of every group, in the order of the columns that it is grouped by."""
    if not selector.by:
        values = rows.sort(rows.columns)["value"].to_list()
        if WITHIN[selector.within] is WITHIN["median"]:
            return {(place,): value for place, value in enumerate(values)}
        return {(): WITHIN[selector.within](values)}
    grouped = rows.group_by(selector.by).agg("value").sort(selector.by)
    return {tuple(row[:-1]): WITHIN[selector.within](row[-1]) for row in grouped.iter_rows()}


def sound_estimate(selector: Selector, tables: Tables) -> Sound | Missing:
    """The mean with its interval; of groups, what is told of them, without one."""
    plain = selector.aggregate == "range" and selector.within == "median"
    if selector.by or selector.less is not None or selector.over is not None or not plain:
        told = "median" if selector.aggregate == "range" else selector.aggregate
        found = measured(replace(selector, aggregate=told), tables)
        return found if isinstance(found, Missing) else Sound(Estimate(found.told[0], None, None), "")
    chosen = chosen_rows(selector, tables)
    if isinstance(chosen, Missing):
        return chosen
    ends = [pl.coalesce("source", "target").fill_null(-1), pl.coalesce("target", "source").fill_null(-1)]
    found_sound = _over_what_is_known(chosen.rows.with_columns(source=ends[0], target=ends[1]))
    if selector.limits is None:
        return found_sound
    return replace(found_sound, estimate=_cut(found_sound.estimate, *selector.limits))


def _over_what_is_known(rows: pl.DataFrame) -> Sound:
    """Over documents where every row has an interval, and over seeds where any of three and more can be left out."""
    seeds = sorted({*rows["source"], *rows["target"]})
    spared = [rows.filter(pl.col("source") != seed, pl.col("target") != seed).height for seed in seeds]
    some_seeds, documents = len(seeds) > 2 and min(spared) > 0, not rows["low"].null_count()
    value = estimate(rows.with_columns(low=None))
    assert value is not None
    if not some_seeds:  # for these pairs alone
        if not documents:
            return Sound(value, "")
        half = mean((rows["high"] - rows["low"]) / 2)
        return Sound(Estimate(value.value, value.value - half, value.value + half), "documents")
    known = rows if documents else rows.with_columns(low=pl.col("value"), high=pl.col("value"))
    found = estimate(known)
    assert found is not None
    return Sound(found, "documents and seeds" if documents else "seeds")


def _cut(found: Estimate, least: float, most: float) -> Estimate:
    """The same with an interval between what is possible."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, least), high=min(found.high, most))


def chosen_rows(selector: Selector, tables: Tables) -> Chosen | Missing:
    """The rows that a selector asks for, at least one; without a table, or with none in it, why."""
    study = selector.study
    if study not in tables:
        return Missing(f"there is no table of {study}", study)
    rows = tables[study].filter(pl.col("metric") == selector.metric)
    where = {"role": "estimate", **({"control": None} if "control" in selector.columns else {})}
    for column, value in {**where, **selector.where}.items():
        rows = rows.filter(_matches(column, value))
    rows = _at_sites(selector, rows, tables[study])
    instead: tuple[str, ...] = ()
    if rows.is_empty():
        return Missing(f"{study} has no such {selector.metric}", study)
    for column, value in selector.prefer.items():
        rows, instead = _preferred(rows, column, value, instead)
    if selector.steps is not None:
        rows, instead = _at_steps(rows, selector.steps, instead)
    if rows.is_empty():
        return Missing(f"{study} has no two checkpoints of one member", study)
    return Chosen(rows, instead)


def _matches(column: str, value: Any) -> pl.Expr:
    if value is None:
        return pl.col(column).is_null()
    return pl.col(column).is_in(value) if isinstance(value, list) else pl.col(column).eq(value)


def _at_sites(selector: Selector, rows: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    if selector.sites == "all":
        return rows
    wanted = sites_in_order(table)[1:-1] if selector.sites == "inner" else list(selector.sites)
    return rows.filter(pl.col("site").is_in(wanted))


def _preferred(
    rows: pl.DataFrame, column: str, value: Any, instead: tuple[str, ...]
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Those rows where there are some, else all, saying what they are instead."""
    if (own := rows.filter(_matches(column, value))).height:
        return own, instead
    there = ", ".join(str(one) for one in rows[column].unique().sort().to_list())
    asked = ", ".join(map(str, value)) if isinstance(value, list) else value
    return rows, (*instead, f"{column} {there} instead of {asked}")


def _at_steps(
    rows: pl.DataFrame, steps: tuple[int, int], instead: tuple[str, ...]
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Those of two steps of one member, or else from the step at the nearest share of the training to the last."""
    early, late = steps
    own = rows.filter(pl.col("source") == pl.col("target"), source_step=early, target_step=late)
    if own.height:
        return own, instead
    forward = rows.filter(
        pl.col("source") == pl.col("target"), pl.col("source_step") < pl.col("target_step")
    ).filter(pl.col("target_step") == pl.col("target_step").max())
    share = (pl.col("source_step") / pl.col("target_step") - early / late).abs()
    near = forward.filter(share == share.min())
    if near.is_empty():
        return near, instead
    at = near.select("source_step", "target_step").row(0)
    return near, (*instead, f"steps {at[0]} and {at[1]} instead of {early} and {late}")
