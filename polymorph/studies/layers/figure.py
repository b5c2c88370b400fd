"""Is the right layer the best one? R² from every site of a member to every site of another."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import study_behind
from polymorph.plotting.heat import cells, shades
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import INK, grid, style
from polymorph.plotting.wording import plain

NAME, TITLE = "layers", "R² from every site to every site"
MAPS = {"orthogonal": "Blues", "affine": "Greens"}


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """A matrix a map; `ladder` lends counts to the caption."""
    if rows.filter(pl.col("metric") == "r2").is_empty():
        return Missing(NAME, TITLE, "No site was compared with another one.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """Rows of a matrix are sites of the source, columns sites of the target."""
    sites = sites_in_order(rows)
    with style():
        figure, panels = grid(1, len(MAPS), 0.42 * len(sites) + 2.6)
        for axes, (name, hue) in zip(panels[0], MAPS.items(), strict=True):
            mesh = _matrix(axes, rows.filter(pl.col("map") == name), sites, hue)
            axes.set_title(f"{name} map")
            figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.7, aspect=28, pad=0.03, label="R²")
        panels[0][0].set_yticks(range(len(sites)), [plain(site) for site in sites])
        panels[0][0].set_ylim(len(sites) - 0.5, -0.5)
        panels[0][0].set_ylabel("site of the source")
        return settle(figure)


def _matrix(axes: Axes, rows: pl.DataFrame, sites: list[str], hue: str) -> QuadMesh:
    medians = rows.group_by("source_site", "site").agg(pl.col("value").median())
    values = np.full((len(sites), len(sites)), np.nan)
    for source, target, value in medians.iter_rows():
        values[sites.index(source), sites.index(target)] = value
    mesh = cells(axes, values, shades(hue), 0.0, 1.0, size=8.5)
    for place in range(len(sites)):
        axes.plot(
            place + np.array([-0.5, 0.5, 0.5, -0.5, -0.5]) * 0.96,
            place + np.array([-0.5, -0.5, 0.5, 0.5, -0.5]) * 0.96,
            color=INK,
            linewidth=1.2,
        )
    labels = [plain(site) for site in sites]
    axes.set_xticks(range(len(sites)), labels, rotation=50, ha="right", rotation_mode="anchor")
    axes.set_xlabel("site of the target")
    return mesh


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    return " ".join(
        [
            "Median R² over directed pairs of a map from a site of one member (row) to a site of another (column); "
            "framed, the same site on both sides.",
            "Fitted on one half of the documents kept of the fit split and scored on the other; R² = 1 − Σ‖y−ŷ‖² / "
            "Σ‖y−ȳ‖², with ȳ the mean of each dimension. The colour scale ends at 0: what lies below has its colour.",
            f"Data: {study_behind(rows, ladder)}",
            "Cells off the diagonal are the control of the wrong layer: where one is as high as the framed cell "
            "of its column, what the map carries does not belong to that site. No intervals; pairs share seeds.",
        ]
    )
