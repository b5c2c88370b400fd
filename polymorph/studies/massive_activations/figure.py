"""Do a few dimensions carry the residual stream? Massive axes by site, and R² with and without them."""

from collections.abc import Iterator

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from polymorph.alignment.axes import MASSIVE
from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import INTERVAL, R2_DEFINITION, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.sae_panels import lane
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import (
    CEILING,
    INK,
    R2_FLOOR,
    R2_SCALE,
    below_floor,
    map_colour,
    r2_along,
    site_rows,
    style,
)
from polymorph.plotting.table_rows import at_site, measured
from polymorph.plotting.wording import counted, listed, number
from polymorph.studies.massive_activations.rows import ALL, RANDOM, WITHOUT

NAME, TITLE = "massive_activations", "Massive axes, and R² without them"
MAPS = ("identity", "orthogonal", "affine")
OWN = "own SAE"
MARKS = {ALL: ("o", True), WITHOUT: ("o", False), RANDOM: ("x", False)}
MEMBER = Strip("a member", INK, size=4.6, reach=0.14)
GREY = "#8c8c8c"


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """How large the largest axis is, what massive ones hold, and what R² is without; `ladder` lends counts."""
    if measured(rows, "rms_max_over_median").is_empty():
        return Missing(NAME, TITLE, "No member's axes were measured.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A row a site; without massive axes anywhere there is no R² to show."""
    sites, compared = sites_in_order(rows), _compared(rows)
    with style():
        widths = (1.25, 0.8) if compared.is_empty() else (1.25, 0.8, 2.1)
        figure, (largest, share, *further) = site_rows(sites, widths, row=0.46 if len(widths) == 2 else 1.0)
        MEMBER.draw(largest, sites, measured(rows, "rms_max_over_median"))
        MEMBER.draw(share, sites, measured(rows, "massive_variance_share"))
        _size_axis(largest, sites, rows)
        share.set_xlim(-0.04, 1.04)
        share.set_xticks([0, 0.5, 1])
        share.set_xlabel("share of variance")
        handles = [MEMBER.handle]
        for axes in further:
            handles += _scores(axes, sites, compared)
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
        return settle(figure)


def _size_axis(axes: Axes, sites: list[str], rows: pl.DataFrame) -> None:
    """Logarithmic, with the bound of a massive axis and how many pass it."""
    most = float(measured(rows, "rms_max_over_median")["value"].max())  # type: ignore[arg-type]
    axes.set_xscale("log")
    axes.set_xlim(0.8, 8 * max(most, MASSIVE))
    axes.axvline(MASSIVE, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0.9)
    marks = [10.0**power for power in range(12) if 10.0**power < 8 * max(most, MASSIVE)]
    axes.set_xticks(marks, [f"{mark:,.0f}" for mark in marks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("largest / median RMS")
    for row, site in enumerate(sites):
        counts = sorted(at_site(measured(rows, "massive_dimensions"), site)["value"].to_list())
        ends = "–".join(dict.fromkeys(f"{end:.0f}" for end in (*counts[:1], *counts[-1:])))
        axes.annotate(
            ends, (0.97, row), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=9
        )


def _compared(rows: pl.DataFrame) -> pl.DataFrame:
    """R² of maps, and explained variance of SAEs, with the series they belong to."""
    own = pl.when(pl.col("metric") == "explained_variance").then(pl.lit(OWN)).otherwise(pl.col("map"))
    metrics = ("r2", "explained_variance")
    return rows.filter(pl.col("metric").is_in(metrics), pl.col("axes").is_not_null()).with_columns(series=own)


def _series(compared: pl.DataFrame) -> list[str]:
    return [name for name in (*MAPS, OWN) if name in compared["series"].to_list()]


def _scores(axes: Axes, sites: list[str], compared: pl.DataFrame) -> list[Line2D]:
    """A lane for every map and one of its own for each mark; the handles that tell them apart."""
    strips = list(_strips(compared))
    for place, (name, which, strip) in enumerate(strips):
        own = compared.filter(pl.col("series") == name, pl.col("axes") == which).sort("sae", nulls_last=False)
        placed = lane(strip, place, len(strips))
        placed.draw(axes, sites, own)
        for row, site in enumerate(sites):
            if below := at_site(own, site).filter(pl.col("value") < R2_FLOOR).height:
                below_floor(axes, row + placed.offset, below, strip.colour)
    r2_along(axes, float(compared["value"].min()))  # type: ignore[arg-type]
    axes.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    axes.set_xlabel("R² on the eval split" if OWN not in _series(compared) else "R², explained variance")
    for row, site in enumerate(sites):
        if at_site(compared, site).is_empty():
            axes.annotate("no massive axis", (0.5, row), ha="center", va="center", color=GREY, fontsize=9)
    colours = [Line2D([], [], color=_colour(name), lw=3, label=name) for name in _series(compared)]
    marks = [Strip(_words(which), INK, mark, filled).handle for which, (mark, filled) in MARKS.items()]
    return [*colours, *marks]


def _strips(compared: pl.DataFrame) -> Iterator[tuple[str, str, Strip]]:
    for name in _series(compared):
        for which, (mark, filled) in MARKS.items():
            yield name, which, Strip(name, _colour(name), mark, filled, size=3.6, floor=R2_FLOOR)


def _colour(name: str) -> str:
    return CEILING if name == OWN else map_colour(name)


def _words(axes: str) -> str:
    names = {ALL: "all axes", WITHOUT: "without massive axes", RANDOM: "without random axes (control)"}
    return names[axes]


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    compared = _compared(rows)
    members = sorted(measured(rows, "massive_dimensions")["target"].unique().to_list())
    sentences = [
        "Left, the largest root mean square of an axis of the residual stream on the fit split, in medians over axes "
        f"(logarithmic; where LayerNorm reads the stream, of the stream without its mean), one dot a member; dashed, "
        f"{MASSIVE:g}, from which on an axis is called massive, and beside it how many are. Middle, the share of a "
        "member's variance that its massive axes hold.",
    ]
    if compared.is_empty():
        sentences.append(
            "No member has a massive axis at any site: nothing was left out of any other number."
        )
    else:
        sentences += [
            "Right, R² of a directed pair, and explained variance of a member's own SAE where there are SAEs, with all "
            "axes (filled), without the massive axes of any member (open), and without as many others at random "
            "(crosses), the control.",
            R2_SCALE,
            R2_DEFINITION,
            *_off_scale(compared),
        ]
    behind = study_behind(rows.filter(pl.col("source").is_not_null()), ladder, ("fit", "eval"))
    return " ".join(
        [
            *sentences,
            f"Data: {behind} Members: {counted(len(members), 'seed')} ({listed(members)}).",
            f"Whiskers: {INTERVAL[0].lower()}{INTERVAL[1:]} Those of the axes are over documents of the fit split.",
            "Where R² is another one without massive axes, and not without random ones, a few dimensions decide it: "
            "what it says holds for them, and not for the stream. Pairs share seeds: dots are not independent.",
        ]
    )


def _off_scale(compared: pl.DataFrame) -> Iterator[str]:
    low = compared.filter(pl.col("value") < R2_FLOOR)
    if not low.is_empty():
        each = ", ".join(
            f"{name} {count}" for name, count in sorted(low["series"].value_counts().iter_rows())
        )
        yield (
            f"{counted(low.height, 'dot')} below {number(R2_FLOOR, 0)} ({each}) lie off the scale: an arrow with "
            "their number stands for them."
        )
