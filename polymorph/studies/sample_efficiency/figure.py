"""How many tokens does a fit need? R² on the eval split against the tokens of the fit."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import (
    INK,
    R2_SCALE,
    map_colour,
    r2_axis,
    short_step,
    site_grid,
    style,
    zero_line,
)
from polymorph.plotting.table_rows import at_site, measured
from polymorph.plotting.wording import whole
from polymorph.studies.sample_efficiency.rows import WITHIN

NAME, TITLE = "sample_efficiency", "R² against the number of fit tokens"
MAPS = {"orthogonal": ("o", 3.0), "affine": ("s", 1.2)}
"""Map → mark and width of its line: where both agree, the wider one is seen beside the other."""


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """A curve a map, with its limit; `ladder` lends counts to the caption."""
    if measured(rows, "r2").is_empty():
        return Missing(NAME, TITLE, "No map was fitted on a part of the tokens.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A panel a site."""
    sites, curves = sites_in_order(rows), measured(rows, "r2")
    with style():
        figure, panels = site_grid(sites)
        for axes, site in zip(panels, sites, strict=True):
            for name in MAPS:
                _curve(axes, at_site(rows, site).filter(pl.col("map") == name), name)
            zero_line(axes)
        least, most = int(curves["fit_tokens"].min()), int(curves["fit_tokens"].max())  # type: ignore[arg-type]
        panels[0].set_xscale("log")
        panels[0].set_xlim(least / 1.4, most * 1.4)
        marks = [10**k for k in range(1, 12) if least / 1.4 <= 10**k <= most * 1.4]
        panels[0].xaxis.set_major_locator(FixedLocator(marks if len(marks) > 1 else [least, most]))
        panels[0].xaxis.set_minor_locator(NullLocator())
        panels[0].xaxis.set_major_formatter(FuncFormatter(lambda n, _: short_step(n)))
        r2_axis(panels[0], float(curves["value"].min()))  # type: ignore[arg-type]
        figure.supxlabel("tokens in the fit", fontsize=10)
        figure.supylabel("R² on the eval split", fontsize=10)
        figure.legend(handles=_handles(), loc="outside upper left", ncols=4)
        return settle(figure)


def _curve(axes: Axes, rows: pl.DataFrame, name: str) -> None:
    """Median and range of the pairs, the median limit as a dashed line, and a triangle where it is reached."""
    colour, (marker, width) = map_colour(name), MAPS[name]
    at = measured(rows, "r2").group_by("fit_tokens")
    curve = at.agg(
        low=pl.col("value").min(), median=pl.col("value").median(), high=pl.col("value").max()
    ).sort("fit_tokens")
    axes.fill_between(curve["fit_tokens"], curve["low"], curve["high"], color=colour, alpha=0.18, linewidth=0)
    axes.plot(curve["fit_tokens"], curve["median"], color=colour, marker=marker, ms=3, lw=width)
    limits = measured(rows, "r2_limit")["value"]
    if limits.is_empty():
        return
    limit = float(limits.median())  # type: ignore[arg-type]
    axes.axhline(limit, color=colour, linewidth=1.0, linestyle=(0, (4, 3)))
    reached = measured(rows, "tokens_to_limit")["value"]
    if not reached.is_empty():
        axes.plot(float(reached.median()), limit, "v", color=colour, mec="white", ms=9, zorder=4)  # type: ignore[arg-type]


def _handles() -> list[Line2D]:
    lines = [
        Line2D([], [], color=map_colour(name), marker=marker, ms=4, lw=width, label=name)
        for name, (marker, width) in MAPS.items()
    ]
    limit = Line2D([], [], color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label="limit")
    reached = Line2D(
        [], [], color=INK, linestyle="", marker="v", mec="white", ms=9, label="tokens to the limit"
    )
    return [*lines, limit, reached]


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    counts = sorted(measured(rows, "r2")["fit_tokens"].unique().to_list())
    return " ".join(
        [
            f"R² on the eval split of maps fitted on growing parts of the fit split, from {whole(counts[0])} to "
            f"{whole(counts[-1])} tokens (logarithmic): lines are medians, bands reach from the least to the "
            "greatest of all unordered pairs.",
            R2_SCALE,
            "Dashed, the limit R²_∞ of R²(n) = R²_∞ − c/n through all tokens and half of them; a triangle stands at "
            f"the least number of tokens from which on R² stays within {WITHIN} of it, both medians over pairs.",
            f"Data: {study_behind(rows.with_columns(n_tokens=None), ladder, ('fit', 'eval'))}",
            "Parts are nested, so points of a curve are not independent; small parts are the first tokens, whole "
            "documents or not. A limit is an extrapolation from two points. No intervals; pairs share seeds.",
        ]
    )
