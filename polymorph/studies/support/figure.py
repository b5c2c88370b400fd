"""Which part of R do the data determine? Determined dimensions by site, and what stands out on them."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import CEILING, INK, map_colour, site_rows, style
from polymorph.plotting.table_rows import at_site, measured, once
from polymorph.plotting.wording import counted

NAME, TITLE = "support", "How much of R the data determine"
STRIPS = (
    ("determined_dimension", "estimate", Strip("r of a pair", map_colour("orthogonal"), offset=-0.26)),
    (
        "determined_dimension",
        "ceiling",
        Strip("r of a member with itself (ceiling)", CEILING, filled=False, offset=-0.04),
    ),
    ("pinned_dimension", "estimate", Strip("pinned dimension", "#d55e00", "D", offset=0.16)),
    ("privileged_axes", "estimate", Strip("privileged axes", "#7b5aa6", "s", offset=0.34)),
)
HALVES = Strip("split-half angle", map_colour("orthogonal"))


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Dimensions of pairs beside those of members with themselves; `ladder` lends counts to the caption."""
    if measured(rows, "determined_dimension").is_empty():
        return Missing(NAME, TITLE, "The determined dimensions were not measured.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A row a site."""
    sites = sites_in_order(rows)
    with style():
        figure, (dimensions, halves) = site_rows(sites, (2.8, 1.0), row=0.62)
        for metric, role, strip in STRIPS:
            strip.draw(dimensions, sites, measured(rows, metric, role))
        _whole(dimensions, sites, rows)
        HALVES.draw(halves, sites, once(measured(rows, "split_half_angle")))
        halves.xaxis.set_major_locator(MaxNLocator(3))
        halves.set_xlabel("split-half angle, rad")
        halves.set_xlim(0, max(0.1, 1.1 * halves.get_xlim()[1]))
        d = Line2D([], [], color=INK, linestyle="", marker="|", ms=12, mew=1.6, label="d")
        handles = [*(strip.handle for _, _, strip in STRIPS), d]
        figure.legend(handles=handles, loc="outside upper left", ncols=3)
        return settle(figure)


def _whole(axes: Axes, sites: list[str], rows: pl.DataFrame) -> None:
    """d as a bar in the row of each site, and the least r of its pairs in words."""
    largest = float(measured(rows, "dimension")["value"].max())  # type: ignore[arg-type]
    for row, site in enumerate(sites):
        here = at_site(rows, site)
        d = float(measured(here, "dimension")["value"].max())  # type: ignore[arg-type]
        r = float(measured(here, "determined_dimension")["value"].min())  # type: ignore[arg-type]
        axes.vlines(d, row - 0.42, row + 0.42, color=INK, linewidth=1.6)
        axes.annotate(f"{r:.0f} of {d:.0f}", (largest * 1.04, row), va="center", fontsize=9)
    axes.set_xlim(-0.02 * largest, largest * 1.24)
    axes.set_xticks([round(largest * part / 4) for part in range(5)])
    axes.set_xlabel("dimensions")


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    selves = measured(rows, "determined_dimension", "ceiling")["source"].n_unique()
    return " ".join(
        [
            "r is the number of leading directions of C_xy within which every plane of R is known to a standard "
            "error below 0.1 rad, by the document-clustered variance of the fit; in words, the least r of all "
            "pairs, of d.",
            f"Open dots are the ceiling: a member against itself ({counted(selves, 'seed')}), whose own "
            "activations determine no more.",
            "On the r determined directions alone: the pinned dimension counts those that R does not turn, the "
            "privileged axes those coordinate axes that R takes to a coordinate axis, up to sign; they are left "
            "out where r = 0.",
            "The split-half angle is that between R from one half of the documents and from the other, there.",
            f"Data: {study_behind(rows, ladder)}",
            "These are counts, without intervals. Where r < d no statistic of the whole of R, trace and Haar "
            "tests among them, says anything of the members.",
        ]
    )
