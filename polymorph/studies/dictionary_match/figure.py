"""Do the SAEs of two members have the same features? Matched directions, beside what explains them without any."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from polymorph.plotting.captions import steps_behind, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.sae_panels import (
    FEW_LANES,
    Place,
    draw_at,
    lane,
    median,
    place_rows,
    places_of,
)
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import CEILING, CONTROL_COLOURS, map_colour, style
from polymorph.plotting.wording import listed, number
from polymorph.studies.dictionary_match.rows import DECODER

NAME, TITLE = "dictionary_match", "Features matched between SAEs, and what matches without any in common"
SHARE, MEAN = "match_share", "match_mean_max"
ARRANGEMENTS = {
    "distinct": Strip("distinct", map_colour("orthogonal")),
    "shared": Strip("shared", map_colour("shift"), "D"),
    "again": Strip("again (ceiling)", CEILING, filled=False),
    "unrelated": Strip("unrelated (artefact)", CONTROL_COLOURS["documents_permuted"], "s"),
    "shared_to_unrelated": Strip("shared to unrelated (artefact)", CONTROL_COLOURS["tokens_permuted"], "^"),
}
"""From the estimates over the ceiling to the controls."""
RAW, MAPPED = "identity", "orthogonal"
CHANCE = "#8c8c8c"


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Shares and means by arrangement; `ladder` lends counts to the caption."""
    if _directions(rows, SHARE).is_empty():
        return Missing(NAME, TITLE, "No two SAEs were compared.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A row a site, in it a lane an arrangement, raw above and through R below."""
    places = places_of(_directions(rows, SHARE))
    there = [name for name in ARRANGEMENTS if _arranged(rows, SHARE, name).height]
    lanes = max(2 * len(there), FEW_LANES)
    with style():
        figure, panels = place_rows(places, (1.0, 1.0), lanes)
        for axes, metric in zip(panels, (SHARE, MEAN), strict=True):
            _chance(axes, places, _arranged(rows, metric, "random"))
            for order, name in enumerate(there):
                for below, map_name in enumerate((RAW, MAPPED)):
                    strip = replace(ARRANGEMENTS[name], filled=map_name == MAPPED)
                    own = _arranged(rows, metric, name).filter(pl.col("map") == map_name)
                    draw_at(axes, lane(strip, 2 * order + below, 2 * len(there)), places, own)
            axes.set_xlim(-0.04, 1.04)
        panels[0].set_xlabel("share of features with a cosine > 0.5")
        panels[1].set_xlabel("mean best cosine")
        figure.legend(handles=_handles(there), loc="outside upper left", ncols=3)
        return settle(figure)


def _directions(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    """The rows of a metric about decoder directions."""
    return rows.filter(metric=metric, convention=DECODER)


def _arranged(rows: pl.DataFrame, metric: str, arrangement: str) -> pl.DataFrame:
    return _directions(rows, metric).filter(arrangement=arrangement).sort("source", "target")


def _chance(axes: Axes, places: Sequence[Place], rows: pl.DataFrame) -> None:
    """The range of random directions, behind the dots, and their mean."""
    for place in places:
        here = place.of(rows)
        if (mean := median(here)) is not None:
            low, high = float(here["low"].min()), float(here["high"].max())  # type: ignore[arg-type]
            top, bottom = place.row - 0.47, place.row + 0.47
            axes.fill_betweenx([top, bottom], low, high, color=CHANCE, alpha=0.35, lw=0)
            axes.vlines(mean, top, bottom, color=CHANCE, linewidth=1.2)


def _handles(there: Sequence[str]) -> list[Line2D]:
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "color": "#7a7a7a", "ms": 5}
    hollow = Line2D([], [], mfc="white", label="hollow: as they are", **look)
    filled = Line2D([], [], label="filled: through R", **look)
    chance = Line2D([], [], color=CHANCE, linewidth=2.5, label="random directions (chance)")
    return [*(ARRANGEMENTS[name].handle for name in there), hollow, filled, chance]


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    estimates = rows.filter(metric=SHARE, role="estimate")
    return " ".join(
        [
            "Every feature of one SAE is matched with the feature of another whose decoder direction is nearest: the "
            "share with a cosine above 0.5, and the mean cosine, one dot a directed pair at "
            f"{steps_behind(estimates)}, hollow as they are, filled after R has turned the directions of the source.",
            "Distinct: SAEs with initialisation seeds of their own, each on its member's activations; shared: with "
            "one seed for all; again: two seeds on one member, the ceiling, which needs no R.",
            "Artefact: unrelated, SAEs with the shared seed on Gaussian noise with the mean and covariance of their "
            "member, and shared to unrelated, in which no feature is common.",
            *_artefact(rows),
            *_absent(rows),
            *_by_chance(rows),
            f"Data: {study_behind(rows.filter(pl.col('role') == 'estimate'), ladder, ('fit', 'eval'))}",
            "All features count, dead ones too; matches among live features, with encoders, one to one and by "
            "activations stand in the table. Only chance has an interval; pairs share seeds and SAEs.",
        ]
    )


def _artefact(rows: pl.DataFrame) -> Iterator[str]:
    """What SAEs that share a seed match, and how much of that unrelated ones do."""
    told = []
    for place in places_of(rows):
        for name, how in ((RAW, "as they are"), (MAPPED, "through R")):
            shared, unrelated = (
                place.of(_arranged(rows, SHARE, arrangement).filter(pl.col("map") == name))
                for arrangement in ("shared", "unrelated")
            )
            if shared.height and unrelated.height:
                told.append(f"{place} {how} {place.median(shared)} and {place.median(unrelated)}")
    if told:
        yield (
            "Median share over 0.5 of shared, and of unrelated, which has no feature to share: "
            f"{'; '.join(told)}. What unrelated reaches too comes from the "
            "initialisation or, through R, from the covariances, and not from features."
        )


def _absent(rows: pl.DataFrame) -> Iterator[str]:
    """Which arrangements had no SAEs, what is not known without them, and how they are made."""
    made = rows.filter(pl.col("metric") == "comparisons").group_by("arrangement").agg(pl.col("value").sum())
    none = set(made.filter(pl.col("value") == 0)["arrangement"])
    absent = [name.replace("_", " ") for name in ARRANGEMENTS if name in none]
    if absent:
        yield (
            f"Without SAEs here: {listed(absent)}; "
            "python train.py stage=sae sae.variants=[distinct,shared,again,unrelated] trains them."
        )
    if "again" in none:
        yield "So there is no ceiling."
    if "unrelated" in none:
        yield "How much of a match comes from the way SAEs are trained is not known."


def _by_chance(rows: pl.DataFrame) -> Iterator[str]:
    told = []
    for metric, what in ((SHARE, "share"), (MEAN, "mean")):
        random = _arranged(rows, metric, "random")
        if random.height:
            low, high = (number(float(v)) for v in (random["low"].min(), random["high"].max()))  # type: ignore[arg-type]
            told.append(f"a {what} of {number(median(random))} (95 % of draws: {low} to {high})")
    if told:
        yield f"Grey, as many random directions, what chance matches: {' and '.join(told)}."
