"""How far is the fitted orthogonal matrix from no turn at all? ‖R − I‖ against step, beside Haar's scale."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import data_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import CEILING, INK, map_colour, site_grid, step_axis, style
from polymorph.plotting.table_rows import at_site, dimension, measured, once
from polymorph.studies.ladder.r2_trajectory import (
    in_step,
    line_and_band,
    no_trajectory,
    unequal_sentence,
)

NAME, TITLE = "frobenius_trajectory", "Distance of the fitted orthogonal matrix from the identity"
METRIC, SCALE = "frobenius_from_identity", "frobenius_haar_scale"


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Lines over the steps at which pairs were compared; `Missing` with fewer than two."""
    shown = in_step(rows)
    reason = no_trajectory(measured(shown, METRIC))
    if reason is not None:
        return Missing(NAME, TITLE, reason)
    return Plate(NAME, TITLE, _caption(shown, rows), draw(shown))


def draw(rows: pl.DataFrame) -> Figure:
    """A panel a site; `rows` as from `in_step`."""
    sites = sites_in_order(measured(rows, METRIC))
    with style():
        figure, panels = site_grid(sites)
        for axes, site in zip(panels, sites, strict=True):
            here = at_site(rows, site)
            line_and_band(axes, once(measured(here, METRIC)), map_colour("orthogonal"), "-", "two seeds")
            _ceiling(axes, measured(here, METRIC, "ceiling"))
            _haar(axes, measured(here, SCALE))
            step_axis(axes, int(rows["step"].max()))  # type: ignore[arg-type]
        panels[0].set_ylim(bottom=0)
        figure.supxlabel("training step", fontsize=10)
        figure.supylabel("‖R − I‖ (Frobenius)", fontsize=10)
        figure.legend(handles=panels[0].get_lines(), loc="outside upper left", ncols=3)
        return settle(figure)


def _ceiling(axes: Axes, rows: pl.DataFrame) -> None:
    if not rows.is_empty():
        line_and_band(axes, rows, CEILING, (0, (5, 2)), "one seed, earlier to later step (ceiling)")


def _haar(axes: Axes, rows: pl.DataFrame) -> None:
    """The scale differs between sites only where their dimensions do."""
    if not rows.is_empty():
        axes.axhline(
            float(rows["value"][0]), color=INK, linewidth=1.2, linestyle=":", label="Haar scale √(2d)"
        )


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    d = dimension(rows)
    scale = "" if d is None else f" = {(2 * d) ** 0.5:.2f} for d = {d}"
    sentences = [
        "‖R − I‖ in the Frobenius norm against training step, with R the orthogonal matrix (of O(d), fitted "
        "on the fit split): the line is the median, the band reaches from the least to the greatest of all "
        "unordered pairs (R of one direction is the transpose of the other's, with the same distance).",
        f"The dotted line is √(2d){scale}, the root mean square of a uniformly random matrix.",
        "‖R − I‖ = √(2d − 2 tr R) is the trace and nothing else; near the dotted line is also where "
        "dimensions that the data do not determine take it.",
        f"Data: {data_behind(rows)}",
        "No intervals (the delete-one-block jackknife over documents is made for R² alone).",
    ]
    return " ".join(sentences + unequal_sentence(ladder))
