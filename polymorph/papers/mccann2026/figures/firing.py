"""Firing patterns of SAEs on other members, for print: raw and after R, beside tokens of other documents."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from polymorph.papers.mccann2026.figures.sheet import for_print, handles, one_family, panels_by_convention
from polymorph.plotting.captions import steps_behind, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import CONTROL_COLOURS, map_colour

NAME, TITLE = "firing", "Firing patterns of SAEs on other members"
METRIC = "firing_correlation_mean"
CONVENTIONS = {"paper": "the paper's: all features", "live": "features that fire on both sides"}
LOOKS: dict[str, dict[str, Any]] = {
    "raw": {"color": map_colour("identity"), "marker": "s"},
    "after R": {"color": map_colour("orthogonal"), "marker": "o"},
    "other documents, after R": {"color": CONTROL_COLOURS["documents_permuted"], "marker": "D"},
}
USES: dict[str, dict[str, Any]] = {
    "raw": {"map": "identity"},
    "after R": {"map": "orthogonal"},
    "other documents, after R": {"role": "control", "map": "orthogonal", "control": "documents_permuted"},
}


def plate(tables: Mapping[str, pl.DataFrame], columns: int) -> Drawn:
    """From the tables `firing` and `ladder`; the latter lends counts to the caption."""
    table = tables.get("firing", pl.DataFrame())
    if table.is_empty() or table.filter(metric=METRIC, role="estimate").is_empty():
        return Missing(NAME, TITLE, "No SAE has read another member's activations.")
    rows, family = one_family(table)
    return Plate(NAME, TITLE, _caption(rows, family, tables), draw(rows, columns))


def draw(rows: pl.DataFrame, columns: int) -> Figure:
    """Two panels: of all features, and of those that fire on both sides."""
    with for_print():
        height = 1.8 if columns == 2 else 1.4
        figure, panels = panels_by_convention(rows, METRIC, CONVENTIONS, USES, LOOKS, columns, height, 0.26)
        panels[0].set_ylim(top=1.04)
        figure.supylabel("mean correlation of a feature with itself", fontsize=7)
        figure.legend(handles=handles(LOOKS), loc="outside upper center", ncols=3, columnspacing=1.0)
        return settle(figure)


def _caption(rows: pl.DataFrame, family: str, tables: Mapping[str, pl.DataFrame]) -> str:
    return " ".join(
        [
            f"Correlation of each feature of an SAE ({family}) on its own member's tokens with itself on another "
            f"member's, averaged over features, at {steps_behind(rows)}: one dot a directed pair, a bar their median.",
            "In the paper's convention a feature that is constant on either side counts as 0; on the right, or below, "
            "are those alone that fire on both sides.",
            "The control pairs each token with that of another document at the same position, through the same maps: "
            "what position alone explains. There are no intervals.",
            study_behind(rows, tables.get("ladder", pl.DataFrame(schema=rows.schema)), ("fit", "eval")),
        ]
    )
