"""Do the same parts matter in every member, and can that be predicted?"""

import polars as pl

from polymorph.alignment.multiplicity import SIGNIFICANCE
from polymorph.plotting.answer import Answer
from polymorph.plotting.sae_panels import median
from polymorph.plotting.sentences import (
    ALIKE,
    NO_CEILING,
    across,
    cell,
    joined,
    middle,
    nothing,
    shortened,
)
from polymorph.plotting.style import INK
from polymorph.plotting.wording import DASH
from polymorph.studies.components.figure import SERIES, Series, of_parts
from polymorph.studies.components.members import ABLATION, INTEGRATED, PATCHING
from polymorph.studies.components.rankings import PARTS
from polymorph.studies.study import Tables

STUDY = "components"
BY_NAME, BEST = (
    next(one for one in SERIES if (one.role, one.assignment) == ("estimate", assignment))
    for assignment in ("name", "best")
)
OWN, SLOPE, EARLIER = (
    Series("", attribution, "name", "ceiling", INK) for attribution in (INTEGRATED, PATCHING, ABLATION)
)
LABELS = (
    (BY_NAME, "another's gradients, heads by name"),
    (BEST, "another's gradients, heads best matched"),
    (EARLIER, "own effects a checkpoint before (ceiling)"),
    (OWN, "own gradients (1 for any network)"),
    (SLOPE, "own slope (attribution patching)"),
)


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """Correlation of another member's predictions with effects, beside its null, the ceiling, and the slope."""
    if of_parts(rows).is_empty():
        return nothing("No component was ablated, so which parts matter is not known.")
    lines = [_line(rows, *about) for about in LABELS if about[0].of(rows).height] + _ranking(rows)
    columns = ("what predicts the effects", "Pearson's r", "null", f"p < {SIGNIFICANCE}")
    return Answer(joined([_across(rows), _within(rows)]), columns, shortened(lines))


def _line(rows: pl.DataFrame, series: Series, label: str) -> tuple[str, ...]:
    return (label, cell(series.of(rows)), cell(series.of(rows, "null")), _rejected(rows, series))


def _p(rows: pl.DataFrame, series: Series) -> pl.DataFrame:
    """Of Pearson's r under the null, one a pair."""
    return rows.filter(
        pl.col("assignment").fill_null("name") == (series.assignment or "name"),
        pl.col("order").is_null(),
        (pl.col("source") == pl.col("target")) == (series.role == "ceiling"),
        metric="p_value",
        statistic="pearson",
        kind=PARTS,
        attribution=series.attribution,
    )


def _rejected(rows: pl.DataFrame, series: Series) -> str:
    p = _p(rows, series)
    return f"{p.filter(pl.col('value') < SIGNIFICANCE).height} of {p.height}" if p.height else DASH


def _across(rows: pl.DataFrame) -> str:
    found, null, best = BY_NAME.of(rows), BY_NAME.of(rows, "null"), BEST.of(rows)
    if found.is_empty():
        return "No two members were compared, so whether the same parts matter is not known."
    beside = f", where other orders of the heads give {middle(null)}" if null.height else ""
    chance = BEST.of(rows, "null")
    matched = f"; with heads best matched {middle(best)}" if best.height else ""
    matched += f" (at random {middle(chance)})" if best.height and chance.height else ""
    return joined(
        [
            "Another member's integrated gradients predict the effects of heads and MLPs with r "
            f"{across(found)}{beside}{matched}.",
            _evidence(_p(rows, BY_NAME), median(found), median(null)),
        ]
    )


def _evidence(p: pl.DataFrame, r: float | None, null: float | None) -> str:
    if p.is_empty():
        return "There is no p-value to hold it against."
    below = p.filter(pl.col("value") < SIGNIFICANCE).height
    counts = f"p < {SIGNIFICANCE} in {below or 'none'} of {p.height} pairs, not adjusted"
    if not below or (r is not None and null is not None and null > r - ALIKE):
        return f"That is no evidence that heads correspond: {counts}."
    return f"{counts}."


def _within(rows: pl.DataFrame) -> str:
    told_of = [
        f"{label} {middle(series.of(rows))}"
        for series, label in (
            (EARLIER, "its own effects a checkpoint before (ceiling)"),
            (SLOPE, "its own slope at the clean run (attribution patching)"),
        )
        if series.of(rows).height
    ]
    own = f"Of a member itself: {', '.join(told_of)}." if told_of else ""
    return joined([own, "" if EARLIER.of(rows).height else NO_CEILING])


def _ranking(rows: pl.DataFrame) -> list[tuple[str, ...]]:
    """What another member's ranking gains over random ones, of what the own gains."""
    gain = rows.filter(metric="ranking_gain", role="estimate", assignment="name")
    return [("gain of another's ranking over random (own: 1)", cell(gain), DASH, DASH)] if gain.height else []
