"""How far R turns, for print: ‖R − I‖ and eigenvalue angles as in the paper, beside what the data determine of R."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.evidence.rows import sites_in_order
from polymorph.papers.mccann2026.figures.sheet import dots, for_print, place_name, sheet, site_axis
from polymorph.plotting.captions import data_behind, steps_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import INK, map_colour
from polymorph.plotting.table_rows import at_site, dimension, measured, once

NAME, TITLE = "rotation", "How far R turns"
LOOK: dict[str, Any] = {"color": map_colour("orthogonal"), "marker": "o"}
KOLMOGOROV = 1.358
"""√n times the distance that independent draws exceed once in twenty times."""
SHADES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#6b6b6b", "#7b5aa6", "#8a5a2b")
LINES = ("-", "--", ":", "-.")


def plate(tables: Mapping[str, pl.DataFrame], columns: int) -> Drawn:
    """From the tables `ladder`, at the last steps, and `angles`."""
    ladder, angles = (tables.get(name, pl.DataFrame()) for name in ("ladder", "angles"))
    if ladder.is_empty() or angles.is_empty():
        return Missing(NAME, TITLE, "It needs the studies ladder and angles.")
    return Plate(NAME, TITLE, _caption(ladder, angles), draw(ladder, angles, columns))


def draw(ladder: pl.DataFrame, angles: pl.DataFrame, columns: int) -> Figure:
    """Three panels: ‖R − I‖, the law of the angles less the uniform one, and the angle on the support."""
    sites = sites_in_order(ladder)
    with for_print():
        shape = (1, 3) if columns == 2 else (3, 1)
        figure, cells = sheet(*shape, columns, 1.75 if columns == 2 else 1.45)
        panels = [axes for row in cells for axes in row]
        _frobenius(panels[0], ladder, sites)
        _angles(panels[1], angles, sites)
        _support(panels[2], ladder, sites)
        return settle(figure)


def _frobenius(axes: Axes, ladder: pl.DataFrame, sites: Sequence[str]) -> None:
    rows = once(measured(ladder, "frobenius_from_identity"))
    dots(axes, sites, rows, LOOK, 0.0)
    d = dimension(ladder)
    if d is not None:
        axes.axhline(math.sqrt(2 * d), color=INK, linestyle=":", linewidth=0.9)
        axes.annotate("√(2d)", (0.99, math.sqrt(2 * d)), (0, 2), textcoords="offset points", ha="right",
            xycoords=("axes fraction", "data"), fontsize=6)  # fmt: skip
        axes.set_ylim(0, 1.12 * math.sqrt(2 * d))
    site_axis(axes, sites)
    axes.set_title("‖R − I‖ (the paper's)")


def _angles(axes: Axes, angles: pl.DataFrame, sites: Sequence[str]) -> None:
    """By site, the empirical law of all angles less the uniform one; between the lines the paper's test accepts."""
    n = 0
    for place, site in enumerate(sites):
        values = np.sort(at_site(angles.filter(role="estimate"), site)["value"].to_numpy())
        if not len(values):
            continue
        n = max(n, len(values))
        difference = np.arange(1, len(values) + 1) / len(values) - (values / (2 * math.pi) + 0.5)
        look: dict[str, Any] = {
            "color": SHADES[place % len(SHADES)],
            "linestyle": LINES[place % len(LINES)],
            "linewidth": 0.8,
        }
        axes.plot(values, difference, label=place_name(site), **look)
    bound = KOLMOGOROV / math.sqrt(max(n, 1))
    for side in (-bound, bound):
        axes.axhline(side, color=INK, linestyle=":", linewidth=0.9)
    axes.set_ylim(-1.9 * bound, 1.9 * bound)
    axes.set_xlim(-math.pi, math.pi)
    axes.set_xticks([-math.pi, 0, math.pi], ["−π", "0", "π"])
    axes.legend(loc="lower center", ncols=3, fontsize=5, columnspacing=0.8, handlelength=1.6)
    axes.set_title("law of the angles − uniform (the paper's)")


def _support(axes: Axes, ladder: pl.DataFrame, sites: Sequence[str]) -> None:
    """The mean angle on the determined support, with the number of its dimensions above each site."""
    rows = once(measured(ladder, "angle_on_support"))
    dots(axes, sites, rows, LOOK, 0.0)
    axes.axhline(math.pi / 2, color=INK, linestyle=":", linewidth=0.9)
    determined = once(measured(ladder, "determined_dimension"))
    for place, site in enumerate(sites):
        values = at_site(determined, site)["value"]
        if len(values):
            axes.annotate(f"{float(np.median(values.to_numpy())):g}", (place, 1.82), ha="center", fontsize=6)
    axes.set_ylim(0, 2.0)
    axes.set_yticks([0, math.pi / 4, math.pi / 2], ["0", "π/4", "π/2"])
    site_axis(axes, sites)
    axes.set_title("angle on what is determined (sound)")


def _caption(ladder: pl.DataFrame, angles: pl.DataFrame) -> str:
    d = dimension(ladder)
    return " ".join(
        [
            f"The orthogonal maps R at {steps_behind(ladder)}, one dot an unordered pair, a bar their median.",
            f"‖R − I‖ = √(2d − 2 tr R), d = {d}, is the trace and nothing else; a uniformly random matrix is at "
            "√(2d) ± 1/√(2d).",
            "The law of all eigenvalue angles of a site less the uniform one: between the dotted lines the paper's "
            "Kolmogorov–Smirnov test accepts. It cannot reject, because eigenvalues of Haar matrices, of permutations "
            "and of fits to noise all repel each other.",
            "On the right, or below, the mean angle between matched directions among those that the data determine, "
            "their number above; at π/2 they have nothing in common. What is not determined looks random by "
            "construction.",
            data_behind(ladder),
            f"{angles.filter(role='estimate').height:,} eigenvalues, which are not independent; no intervals.",
        ]
    )
