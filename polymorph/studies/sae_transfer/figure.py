"""Does the SAE of one member explain another? Explained variance by site and map, beside what needs no pairing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import INTERVAL, steps_behind, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.sae_panels import Place, median, places_of, used
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import (
    CEILING,
    CONTROL_COLOURS,
    CONTROL_MARKERS,
    INK,
    R2_FLOOR,
    R2_SCALE,
    control_name,
    grid,
    map_colour,
    r2_along,
    site_grid,
    style,
)
from polymorph.plotting.table_rows import at_site, scores
from polymorph.plotting.wording import counted, number, plain, spread

NAME, TITLE = "sae_transfer", "SAEs on other members: explained variance by site and map"
EV = "explained_variance"
MAPS = ("identity", "orthogonal", "similarity", "reduced_rank", "affine")
"""Those that are shown; the shift, signed permutations and rotations stand in the table."""
CONTROLS = (
    ("covariance_only", "orthogonal"),
    ("matched_gaussian", "orthogonal"),
    ("tokens_permuted", "orthogonal"),
    ("tokens_permuted", "affine"),
    ("predict_mean", None),
)
BEYOND = 1.7  # room, in the squeezed half of the axis, for what lies off the scale
MEANING = (
    "What it means: an EV that covariance only reaches too is no evidence of a shared code, because an SAE "
    "reconstructs whatever has the covariance that it was trained on. The pairing gain, [EV(R) − EV(covariance only)] "
    "/ [EV(own) − EV(covariance only)], is what the true pairing adds: 0 is nothing and 1 all that was lacking."
)


@dataclass(frozen=True)
class Series:
    """One row of a panel: an SAE on its own member, through a map, or through one that has not seen the pairing."""

    strip: Strip
    role: str = "estimate"
    map: str | None = None
    control: str | None = None

    def of(self, rows: pl.DataFrame, metric: str = EV, convention: str | None = "centred") -> pl.DataFrame:
        """Its rows, one a directed pair; of its own member, one a member."""
        return used(rows, metric, convention, role=self.role, map=self.map, control=self.control)


OWN = Series(Strip("own SAE: the ceiling", CEILING), "ceiling")


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Every pair and its medians; `ladder` lends counts and R² to the caption."""
    if rows.filter(metric=EV, role="estimate").is_empty():
        return Missing(NAME, TITLE, "No SAE was used on another member than its own.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def through(name: str) -> Series:
    """An SAE through a map there and back."""
    label = "identity: naive" if name == "identity" else name.replace("_", " ")
    return Series(Strip(label, map_colour(name)), map=name)


def unpaired(control: str, name: str | None) -> Series:
    """A control, which has not seen the pairing."""
    label = control_name(control) + (", affine" if name == "affine" else "")
    marker, colour = CONTROL_MARKERS.get(control, "P"), CONTROL_COLOURS.get(control, "#8c8c8c")
    return Series(Strip(label, colour, marker), "control", name, control)


def series_of(rows: pl.DataFrame) -> list[Series]:
    """Those that have rows: the ceiling, maps, and then controls."""
    every = [OWN, *(through(name) for name in MAPS), *(unpaired(*about) for about in CONTROLS)]
    return [one for one in every if not one.of(rows).is_empty()]


def draw(rows: pl.DataFrame) -> Figure:
    """A panel a site, and of several families a column each."""
    series, places = series_of(rows), places_of(rows)
    sites = sites_in_order(rows)
    families, height = len(places) // len(sites), 0.23 * len(series) + 0.55
    with style():
        if families == 1:
            figure, panels = site_grid(sites, panel_height=height)
        else:
            figure, cells = grid(len(sites), families, height * len(sites) + 1.2)
            panels = [row[column] for column in range(families) for row in cells]
        for axes, place in zip(panels, places, strict=True):
            _panel(axes, series, place, rows)
        panels[0].set_yticks(range(len(series)), [one.strip.label for one in series])
        panels[0].set_ylim(len(series) - 0.4, -0.6)
        least = min(float(one.of(rows)["value"].min()) for one in series)  # type: ignore[arg-type]
        r2_along(panels[0], least)
        panels[0].xaxis.set_major_locator(FixedLocator([R2_FLOOR, -1, 0, 0.5, 1]))
        if least < R2_FLOOR:
            panels[0].set_xlim(left=R2_FLOOR - BEYOND)
        figure.supxlabel("explained variance on the eval split", fontsize=10)
        figure.legend(handles=_handles(), loc="outside upper left", ncols=4)
        return settle(figure)


def _panel(axes: Axes, series: Sequence[Series], place: Place, rows: pl.DataFrame) -> None:
    here = place.of(rows)
    for number_of, one in enumerate(series):
        strip = replace(one.strip, offset=number_of - 0.12, spread=0.13, reach=0.05, size=3.6, floor=R2_FLOOR)
        strip.draw(axes, [place.site], one.of(here))
        paper = replace(strip, offset=number_of + 0.24, spread=0.07, size=2.8, filled=False, median=False)
        paper.draw(axes, [place.site], one.of(here, convention="paper").with_columns(low=None, high=None))
        _arrow(axes, strip, one.of(here))
    first = next((at for at, one in enumerate(series) if one.role == "control"), len(series))
    axes.axhspan(first - 0.5, len(series), color="#f1f1f1", zorder=0)
    axes.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    name = f"{plain(place.family)}\n" if place.several else ""
    axes.set_title(f"{name}{plain(place.site)}\npairing gain {spread(_gains(here), 2)}", fontsize=9.5)


def _gains(rows: pl.DataFrame) -> pl.Series:
    return used(rows, "pairing_gain", "centred", map="orthogonal")["value"]


def _arrow(axes: Axes, strip: Strip, rows: pl.DataFrame) -> None:
    """For what lies below the scale, with the least of it."""
    least = rows["value"].min()
    if least is not None and float(least) < R2_FLOOR:  # type: ignore[arg-type]
        at, text = (R2_FLOOR - BEYOND + 0.2, strip.offset), number(float(least), 1)  # type: ignore[arg-type]
        axes.plot(*at, "<", color=strip.colour, markersize=4.5)
        look: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 7.5}
        axes.annotate(text, at, (5, -0.5), color=strip.colour, **look)


def _handles() -> list[Line2D | Patch]:
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "color": INK}
    return [
        Line2D([], [], ms=5, label="centred", **look),
        Line2D([], [], ms=4, mfc="white", label="the paper's convention", **look),
        Line2D([], [], color=INK, linestyle="", marker="|", ms=10, mew=1.6, label="median, centred"),
        Patch(color="#e6e6e6", label="controls: no pairing seen"),
    ]


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    estimates = rows.filter(metric=EV, role="estimate")
    baseline = number(median(unpaired("predict_mean", None).of(rows, convention="paper")), 2)
    return " ".join(
        [
            "Each dot is the explained variance (EV) of the SAE of one member on the activations of another, one a "
            f"directed pair at {steps_behind(estimates)}, a bar their median; the first row is every SAE on its own "
            "member, identity the SAE as it is, and below it SAEs through a map to their member and back.",
            "Filled, centred: 1 − Σ‖x−x̂‖² / Σ‖x−x̄‖² with x̄ the mean of each dimension of the target's activations. "
            "Open, the paper's: 1 − mean squared error / variance over all entries of what the SAE sees, where "
            f"nothing that a map loses counts and a constant has {baseline}.",
            "Shaded, controls: maps that match eigenbases with random signs (covariance only), or were fitted to "
            "an independent Gaussian target or on tokens in random order, and the mean in place of a reconstruction.",
            MEANING,
            *_gain_sentences(rows, ladder),
            R2_SCALE.replace("a map", "a reconstruction"),
            *_off_scale(rows),
            f"Data: {study_behind(estimates, ladder, ('fit', 'eval'))}",
            f"Whiskers, often smaller than their dot: {INTERVAL[0].lower()}{INTERVAL[1:]}",
            "The SAEs are held fixed too. Pairs share seeds and SAEs: dots are not independent.",
        ]
    )


def _gain_sentences(rows: pl.DataFrame, ladder: pl.DataFrame) -> Iterator[str]:
    """Medians, the pointwise R² of R beside them where the ladder is there, and where there is no gain."""
    told, undefined = [], []
    for place in places_of(rows):
        gain = used(place.of(rows), "pairing_gain", "centred", map="orthogonal")
        r2 = median(scores(at_site(ladder, place.site), "orthogonal")) if ladder.height else None
        beside = "" if r2 is None else f" (R² {number(r2, 2)})"
        if gain.is_empty():
            undefined.append(f"{place}{beside}")
        else:
            told.append(f"{place} {number(median(gain), 2)}{beside}")
    if told:
        r2_too = ", and the R² of R from token to token" if ladder.height else ""
        yield f"Median pairing gain{r2_too}: {'; '.join(told)}."
    if undefined:
        yield (
            "No pairing gain, because covariance only comes within 0.01 of the own SAE, or might: "
            f"{'; '.join(undefined)}."
        )


def _off_scale(rows: pl.DataFrame) -> Iterator[str]:
    low = {one.strip.label: one.of(rows).filter(pl.col("value") < R2_FLOOR) for one in series_of(rows)}
    each = [f"{label} {some.height}" for label, some in low.items() if some.height]
    if each:
        total = sum(some.height for some in low.values())
        least = min(float(some["value"].min()) for some in low.values() if some.height)  # type: ignore[arg-type]
        yield (
            f"The axis ends at {number(R2_FLOOR, 0)}: {counted(total, 'dot')} below it ({', '.join(each)}; the "
            f"least at {number(least, 2)}), for which arrows stand with the least in words."
        )
