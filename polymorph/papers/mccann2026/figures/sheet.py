"""The paper of a figure for print: widths of a page's columns, small type, fonts that are embedded, dots by site."""

import io
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.sae_panels import used
from polymorph.plotting.style import STYLE, zero_line
from polymorph.plotting.table_rows import at_site
from polymorph.plotting.wording import plain

WIDTHS = {1: 3.25, 2: 6.75}
"""Inches, of one column of a page and of two."""
FOR_PRINT: dict[str, Any] = STYLE | {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "pdf.fonttype": 42,  # TrueType, which can be searched and edited; journals refuse type 3
    "ps.fonttype": 42,
}
SIZE = re.compile(rb'width="([\d.]+)pt" height="([\d.]+)pt"')
PREFERRED = ("paper_x8", "paper_x32")


def for_print() -> Any:
    """The context in which figures for print are drawn and saved."""
    return rc_context(FOR_PRINT)


def sheet(
    rows: int, columns: int, width: int, height: float, **options: Any
) -> tuple[Figure, list[list[Axes]]]:
    """A figure as wide as one or two columns of a page, `height` inches a row of panels and half an inch for words."""
    if width not in WIDTHS:
        raise ValueError(f"columns={width}: a page has {' or '.join(map(str, WIDTHS))}")
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03)
    figure = Figure(figsize=(WIDTHS[width], height * rows + 0.5), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [list(row) for row in axes]


def place_name(site: str) -> str:
    """A site by its block and place, as 0 mid; other names as they are."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|mid|post)", site)
    return plain(site) if found is None else f"{found[1]} {found[2]}"


def site_axis(axes: Axes, sites: Sequence[str]) -> None:
    """One place along the axis for every site."""
    axes.set_xticks(range(len(sites)), [place_name(site) for site in sites])
    axes.tick_params(axis="x", length=0)
    if len(sites) > 5:
        axes.tick_params(axis="x", labelrotation=45)
    axes.set_xlim(-0.55, len(sites) - 0.45)


def dots(
    axes: Axes, sites: Sequence[str], frame: pl.DataFrame, look: Mapping[str, Any], offset: float
) -> None:
    """Every row as a dot above its site, with its interval where it has one, and a bar at the median of three."""
    for place, site in enumerate(sites):
        rows = at_site(frame, site).sort("source", "target")
        if rows.is_empty():
            continue
        x = place + offset + (np.linspace(-0.05, 0.05, rows.height) if rows.height > 1 else np.zeros(1))
        known = rows.filter(pl.col("low").is_not_null())
        where = x[rows["low"].is_not_null().to_numpy()]
        axes.vlines(where, known["low"], known["high"], color=look["color"], linewidth=0.6, alpha=0.6)
        axes.plot(x, rows["value"].to_numpy(), linestyle="", markersize=2.2, alpha=0.8, **look)
        if rows.height > 2:
            middle = float(np.median(rows["value"].to_numpy()))
            axes.hlines(
                middle, place + offset - 0.09, place + offset + 0.09, color=look["color"], linewidth=1.2
            )


def panels_by_convention(
    rows: pl.DataFrame,
    metric: str,
    titles: Mapping[str, str],
    uses: Mapping[str, Mapping[str, Any]],
    looks: Mapping[str, Mapping[str, Any]],
    columns: int,
    height: float,
    apart: float,
) -> tuple[Figure, list[Axes]]:
    """A panel for each convention in `titles`, with the dots of every use of the SAEs `apart` from the next."""
    sites = sites_in_order(rows)
    figure, cells = sheet(*((1, 2) if columns == 2 else (2, 1)), columns, height, sharey=True)
    panels = [axes for row in cells for axes in row]
    for axes, (convention, title) in zip(panels, titles.items(), strict=True):
        for place, (use, about) in enumerate(uses.items()):
            offset = apart * (place - (len(uses) - 1) / 2)
            dots(axes, sites, used(rows, metric, convention, **about), looks[use], offset)
        zero_line(axes)
        site_axis(axes, sites)
        axes.set_title(title)
    return figure, panels


def handles(looks: Mapping[str, Mapping[str, Any]]) -> list[Line2D]:
    """The legend of dots by name."""
    return [Line2D([], [], linestyle="", markersize=3, label=name, **look) for name, look in looks.items()]


def one_family(rows: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The rows of the paper's SAEs where there are any, else of the first family by name, and which that is."""
    there = sorted(rows["sae"].drop_nulls().unique().to_list())
    family = next((name for name in PREFERRED if name in there), there[0])
    return rows.filter(pl.col("sae") == family), family


def saved_for_print(figure: Figure) -> bytes:
    """The figure as a PDF of its own size, its fonts embedded, without a date: the same rows give the same bytes."""
    logging.getLogger("fontTools").setLevel(
        logging.WARNING
    )  # it tells of every table of a font that it keeps
    buffer = io.BytesIO()
    with for_print():
        FigureCanvasPdf(figure)
        figure.savefig(
            buffer, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None}
        )
    return buffer.getvalue()


def at_width(svg: bytes, columns: int) -> bytes:
    """An SVG of matplotlib's at the width of one or two columns, everything in it scaled alike."""
    if (found := SIZE.search(svg)) is None:
        raise ValueError("this is no SVG of matplotlib's")
    width, height = (float(side) for side in found.groups())
    size = 72 * WIDTHS[columns], 72 * WIDTHS[columns] * height / width
    return b"".join([svg[: found.start()], b'width="%.4fpt" height="%.4fpt"' % size, svg[found.end() :]])
