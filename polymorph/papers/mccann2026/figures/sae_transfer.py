"""SAEs on other members, for print: own, naive and through R by site, beside a map that has seen no pairing."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from polymorph.papers.mccann2026.figures.sheet import for_print, handles, one_family, panels_by_convention
from polymorph.plotting.captions import INTERVAL, steps_behind, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.sae_panels import used
from polymorph.plotting.style import CEILING, CONTROL_COLOURS, map_colour, r2_axis
from polymorph.plotting.wording import spread

NAME, TITLE = "sae_transfer", "Explained variance of SAEs on other members"
EV = "explained_variance"
CONVENTIONS = {"paper": "the paper's convention", "centred": "centred convention"}
LOOKS: dict[str, dict[str, Any]] = {
    "own": {"color": CEILING, "marker": "_"},
    "naive": {"color": map_colour("identity"), "marker": "s"},
    "after R": {"color": map_colour("orthogonal"), "marker": "o"},
    "covariance only": {"color": CONTROL_COLOURS["covariance_only"], "marker": "^"},
}
USES: dict[str, dict[str, Any]] = {
    "own": {"role": "ceiling"},
    "naive": {"map": "identity"},
    "after R": {"map": "orthogonal"},
    "covariance only": {"role": "control", "map": "orthogonal", "control": "covariance_only"},
}


def plate(tables: Mapping[str, pl.DataFrame], columns: int) -> Drawn:
    """From the tables `sae_transfer` and `ladder`; the latter lends counts to the caption."""
    table = tables.get("sae_transfer", pl.DataFrame())
    if table.is_empty() or table.filter(metric=EV, role="estimate").is_empty():
        return Missing(NAME, TITLE, "No SAE was used on another member than its own.")
    rows, family = one_family(table)
    return Plate(NAME, TITLE, _caption(rows, family, tables), draw(rows, columns))


def draw(rows: pl.DataFrame, columns: int) -> Figure:
    """Two panels: the paper's convention, and the centred one."""
    with for_print():
        height = 1.9 if columns == 2 else 1.5
        figure, panels = panels_by_convention(rows, EV, CONVENTIONS, USES, LOOKS, columns, height, 0.22)
        shown = [used(rows, EV, convention, **about) for convention in CONVENTIONS for about in USES.values()]
        least = min(0.0, *(value for some in shown for value in some["value"]))
        r2_axis(panels[0], -2.0)
        panels[0].set_ylim(least - 0.2, 1.1)
        figure.supylabel("explained variance", fontsize=7)
        figure.legend(handles=handles(LOOKS), loc="outside upper center", ncols=4, columnspacing=1.0)
        return settle(figure)


def _caption(rows: pl.DataFrame, family: str, tables: Mapping[str, pl.DataFrame]) -> str:
    gains = used(rows, "pairing_gain", "centred", map="orthogonal")["value"]
    return " ".join(
        [
            f"Explained variance (EV) of SAEs ({family}) on other members at {steps_behind(rows)}: one dot a directed "
            "pair, of own SAEs one a member, a bar their median.",
            "The paper's convention: 1 − mean squared error / variance over all entries of what the SAE sees; a "
            "constant is above 0 there. Centred: 1 − Σ‖x−x̂‖² / Σ‖x−x̄‖² of the target's activations, x̄ the mean of each "
            "dimension. Below 0 the axis is squeezed.",
            "Covariance only is a map that matches eigenbases with random signs and has seen no pairing: an EV that it "
            "reaches too is no evidence of a shared code. The pairing gain, [EV(R) − EV(covariance only)] / [EV(own) − "
            f"EV(covariance only)], is {spread(gains, 2)} over pairs and sites.",
            study_behind(rows, tables.get("ladder", pl.DataFrame(schema=rows.schema)), ("fit", "eval")),
            INTERVAL,
        ]
    )
