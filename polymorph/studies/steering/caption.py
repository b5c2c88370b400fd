"""What the figure of steering says below itself."""

from collections.abc import Sequence

import polars as pl

from polymorph.alignment.families import in_ladder_order
from polymorph.plotting.captions import study_behind
from polymorph.plotting.wording import counted, listed, number, percent, plain
from polymorph.steering.regimes import CLEAN

MOST, ACROSS = 6, 3  # contrasts that are drawn, and panels beside each other


LEAST, GREATEST = -1.0, 2.5  # efficiencies beyond are counted and not drawn


def contrast_names(rows: pl.DataFrame) -> list[str]:
    return sorted(rows.filter(group="named")["contrast"].drop_nulls().unique().to_list())


def systematic_rows(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(group="systematic", metric="regime")


def contrast_count(rows: pl.DataFrame) -> int:
    return systematic_rows(rows)["contrast"].n_unique()


def caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    contrasts = contrast_names(rows)
    sites = rows["site"].unique().sort().to_list()
    return " ".join(
        [
            f"A vector, the difference of two means on fit documents at {listed(sites)}, is added at every token of "
            "eval documents; the log-odds of its target should rise where its conditions hold. Thin lines are pairs "
            "(own vectors: members), thick ones medians; the grey bar is the mean and two standard deviations of "
            "random directions of the same norm, at the dose that is tested.",
            "Below, transfer efficiency: the effect of another member's vector over that of the own; a direction is "
            f"carried by the weight of a map alone; green is {CLEAN[0]:g} to {CLEAN[1]:g}. Beside it the shares of "
            "regimes, each decided by tests under Holm's correction: clean does what the own vector does; partial "
            "less, or more, but above random directions; overdriven costs more KL and achieves no more; inverted "
            "lowers the log-odds; none is like a random direction; undetermined where the own vector does not work.",
            *_medians(rows, contrasts),
            *_foretold(rows),
            f"Data: {_behind(rows, ladder)}",
            "Whiskers are 95 % intervals, by bootstrap over eval documents with vectors and maps held fixed: they hold "
            "no uncertainty between seeds, and pairs share seeds.",
            *_left_out(rows, contrasts),
        ]
    )


def _medians(rows: pl.DataFrame, contrasts: Sequence[str]) -> list[str]:
    told = []
    for contrast in contrasts[:MOST]:
        found = shown_rows(rows).filter(group="named", contrast=contrast, role="estimate")
        each = [
            f"{name} {number(float(own.median()), 2)}"  # type: ignore[arg-type]
            for name in in_ladder_order(found["map"].drop_nulls().to_list())
            if not (own := found.filter(map=name)["value"]).is_empty()
        ]
        if each:
            told.append(f"{plain(contrast)} {', '.join(each)}")
    silent = [
        plain(one) for one in contrasts if shown_rows(rows).filter(group="named", contrast=one).is_empty()
    ]
    none = [f"No member's own vector of {listed(silent)} is shown to work."] if silent else []
    return [*([f"Median efficiencies: {'; '.join(told)}."] if told else []), *none]


def _foretold(rows: pl.DataFrame) -> list[str]:
    if systematic_rows(rows).is_empty():
        return []
    told = []
    for row in rows.filter(metric="spearman", role="estimate").sort("map", "predictor").iter_rows(named=True):
        interval = f"[{number(row['low'], 2)}, {number(row['high'], 2)}]"
        told.append(
            f"{row['predictor'].replace('_', ' ')}, {row['map']}: {number(row['value'], 2)} {interval}"
        )
    shares = [
        f"{percent(row['value'])} ({row['map']})"
        for row in rows.filter(metric="share_working").sort("map").iter_rows(named=True)
    ]
    start = f"Last row: {counted(contrast_count(rows), 'direction')} made by rule, all with one norm"
    works = f", of which {' and '.join(shares)} carry over where the own works" if shares else ""
    ranks = f" Rank correlation with the efficiency: {'; '.join(told)}." if told else ""
    return [f"{start}{works}.{ranks}"]


def shown_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Efficiencies at the dose that is tested, on members whose own vector is shown to work: others mean nothing."""
    keys = ["source", "target", "contrast", "group", "map", "control", "dose"]
    called = rows.filter(pl.col("regime") != "undetermined", metric="regime").select(keys)
    return rows.filter(metric="transfer_efficiency").join(called, on=keys, how="semi", nulls_equal=True)


def _left_out(rows: pl.DataFrame, contrasts: Sequence[str]) -> list[str]:
    found = shown_rows(rows)
    beyond = found.filter(~pl.col("value").is_between(LEAST, GREATEST)).height
    told = [f"{counted(beyond, 'dot')} beyond {number(LEAST, 0)} to {GREATEST:g}"] if beyond else []
    told += [f"{counted(len(contrasts) - MOST, 'contrast')}"] if len(contrasts) > MOST else []
    return [f"Not drawn, or drawn at the edge: {' and '.join(told)}."] if told else []


def _behind(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    named = rows.filter(group="named")
    return study_behind(rows if named.is_empty() else named, ladder, ("fit", "eval"))
