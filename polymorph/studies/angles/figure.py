"""By which angles do the fitted orthogonal maps turn? Their distribution at the last step, site by site."""

import math

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import Pairs, data_behind, participation, steps_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import INK, map_colour, site_grid, style
from polymorph.plotting.table_rows import at_last_steps, at_site, dimension, once
from polymorph.plotting.wording import counted, whole

NAME, TITLE = "eigenvalue_angles", "Eigenvalue angles of the fitted orthogonal map"
BINS = 18  # of 10 degrees


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Histograms of all pairs; `ladder` lends the counts and the participation ratios to the caption."""
    last = once(at_last_steps(rows.filter(pl.col("role") == "estimate")))
    if last.is_empty():
        return Missing(
            NAME, TITLE, "No eigenvalue angles were computed, so there is no distribution to show."
        )
    return Plate(NAME, TITLE, _caption(last, at_last_steps(ladder)), draw(last))


def draw(last: pl.DataFrame) -> Figure:
    """A panel a site: density of |θ| relative to the uniform law, which is 1."""
    sites = sites_in_order(last)
    with style():
        figure, panels = site_grid(sites)
        for axes, site in zip(panels, sites, strict=True):
            _histogram(axes, at_site(last, site)["value"])
        panels[0].set_ylim(bottom=0)
        panels[0].set_xlim(0, math.pi)
        panels[0].set_xticks([0, math.pi / 2, math.pi], ["0", "π/2", "π"])
        figure.supxlabel("|θ|, angle of an eigenvalue", fontsize=10)
        figure.supylabel("density, relative to uniform", fontsize=10)
        return settle(figure)


def _histogram(axes: Axes, angles: pl.Series) -> None:
    counts, edges = np.histogram(np.abs(angles.to_numpy()), bins=BINS, range=(0, math.pi))
    density = counts / (len(angles) / BINS)
    axes.stairs(density, edges, fill=True, color=map_colour("orthogonal"), alpha=0.3)
    axes.stairs(density, edges, color=map_colour("orthogonal"), linewidth=1.4)
    axes.axhline(1, color=INK, linewidth=1.2, linestyle=":")


def _caption(last: pl.DataFrame, ladder: pl.DataFrame) -> str:
    d = dimension(ladder) or last["index"].n_unique()
    behind = data_behind(ladder) if Pairs.of(ladder).directed else data_behind(last)
    return " ".join(
        [
            f"All eigenvalue angles of the orthogonal maps at {steps_behind(last)}, pooled over pairs, as a "
            f"histogram of |θ| in {BINS} bins beside the uniform law (dotted, 1).",
            f"Angles come in pairs ±θ, so one sign is shown. {counted(last.height, 'angle')} from "
            f"{counted(Pairs.of(last).unordered, 'unordered pair')} at "
            f"{counted(len(sites_in_order(last)), 'site')}, d = {whole(d)}; R of the other direction has the same "
            "angles.",
            "R is fitted on the fit split; nothing is scored, so there is no interval (the jackknife over "
            "documents is made for R² alone).",
            f"Data: {behind}",
            "Caution: the eigenvalues of a Haar matrix repel each other, so agreement with the uniform law "
            "is weak evidence: a Kolmogorov–Smirnov test against it, as in the paper, has size 0, and "
            "accepts permutations and fits between unrelated data too.",
            "Where the participation ratio is small compared with d, the data leave a part of R "
            f"undetermined, and that part looks like Haar by construction{_ratios(last, ladder)}.",
            "The real eigenvalues 1 and −1, which a reflection in even d always has, fall into the outermost "
            "bins.",
        ]
    )


def _ratios(last: pl.DataFrame, ladder: pl.DataFrame) -> str:
    ratios = {site: participation(ladder, site) for site in sites_in_order(last)}
    known = [f"{site} {ratio}" for site, ratio in ratios.items() if ratio is not None]
    return f" (median participation ratio: {', '.join(known)})" if known else ""
