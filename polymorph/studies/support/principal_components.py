"""Where does a map fail? R² along every principal component of the target, the largest first."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import R2_SCALE, map_colour, r2_axis, site_grid, style, zero_line
from polymorph.plotting.table_rows import at_site, measured
from polymorph.studies.support.rows import PER_COMPONENT

NAME, TITLE = "principal_components", "R² along the principal components of the target"
MAPS = {"orthogonal": 2.6, "affine": 1.2}
"""Map → width of its line: where both agree, the wider one is seen beside the other."""


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """From the table of the study `support`; `ladder` lends counts to the caption."""
    along = rows.filter(pl.col("convention") == PER_COMPONENT)
    if along.is_empty():
        return Missing(NAME, TITLE, "R² was not measured along components.")
    return Plate(NAME, TITLE, _caption(along, ladder), draw(along))


def draw(along: pl.DataFrame) -> Figure:
    """A panel a site; medians as lines, least to greatest as bands."""
    sites = sites_in_order(along)
    with style():
        figure, panels = site_grid(sites)
        for axes, site in zip(panels, sites, strict=True):
            for name in MAPS:
                _curve(axes, at_site(measured(along, "r2"), site).filter(pl.col("map") == name), name)
            zero_line(axes)
        last = int(along["component"].max()) + 1  # type: ignore[arg-type]
        panels[0].set_xscale("log")
        panels[0].set_xlim(0.9, last * 1.1)
        marks = [n for n in (1, 4, 16, 64, 256, 1024, 4096) if n <= last]
        panels[0].xaxis.set_major_locator(FixedLocator(marks))
        panels[0].xaxis.set_minor_locator(NullLocator())
        panels[0].xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
        r2_axis(panels[0], float(along["value"].min()))  # type: ignore[arg-type]
        figure.supxlabel("principal component of the target, by variance", fontsize=10)
        figure.supylabel("R² on the eval split", fontsize=10)
        figure.legend(handles=panels[0].get_lines()[: len(MAPS)], loc="outside upper left", ncols=2)
        return settle(figure)


def _curve(axes: Axes, rows: pl.DataFrame, name: str) -> None:
    at = rows.group_by("component").agg(
        low=pl.col("value").min(), median=pl.col("value").median(), high=pl.col("value").max()
    )
    at = at.sort("component").with_columns(place=pl.col("component") + 1)
    axes.fill_between(at["place"], at["low"], at["high"], color=map_colour(name), alpha=0.18, linewidth=0)
    axes.plot(at["place"], at["median"], color=map_colour(name), label=name, linewidth=MAPS[name])


def _caption(along: pl.DataFrame, ladder: pl.DataFrame) -> str:
    return " ".join(
        [
            "R² of two maps along each principal component of the target (axes from the fit split, the largest "
            "variance first, logarithmic): lines are medians, bands reach from the least to the greatest of all "
            "directed pairs.",
            R2_SCALE,
            "Along a component, R² = 1 − Σ(residual along it)² / Σ(variation along it)²; maps are fitted on the "
            "fit split and scored on the eval split.",
            f"Data: {study_behind(along, ladder, ('fit', 'eval'))}",
            "Late components hold little variance: what a map loses there hardly shows in the R² of a site. "
            "Components without variance are left out. A band is the spread of pairs, which share seeds, and no "
            "interval.",
        ]
    )
