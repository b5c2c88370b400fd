"""Steering vectors on other members, for print: the paper's ratio of KL by dose, beside the transfer of the effect."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from polymorph.papers.mccann2026.figures.sheet import for_print, handles, place_name, sheet
from polymorph.plotting.captions import study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import INK, map_colour
from polymorph.plotting.wording import counted, listed, plain

NAME, TITLE = "steering", "Steering vectors on other members"
RATIO, EFFICIENCY = "cross_within_kl", "transfer_efficiency"
METRICS = {RATIO: "KL cross / within (the paper's)", EFFICIENCY: "effect / own effect (sound)"}
LOOKS: dict[str, dict[str, Any]] = {
    "as it is": {"color": map_colour("identity"), "marker": "s"},
    "through R": {"color": map_colour("orthogonal"), "marker": "o"},
}
MAPS = {"as it is": "identity", "through R": "orthogonal"}
MOST = 3
LEAST, GREATEST = -2.0, 3.0
"""Efficiencies beyond are counted and not drawn."""


def plate(tables: Mapping[str, pl.DataFrame], columns: int) -> Drawn:
    """From the tables `steering` and `ladder`; the latter lends counts to the caption."""
    table = tables.get("steering", pl.DataFrame())
    rows = table if table.is_empty() else _shown(table)
    if rows.is_empty() or not set(METRICS) & set(rows["metric"]):
        return Missing(NAME, TITLE, "No vector of one member was added to another's residual stream.")
    return Plate(NAME, TITLE, _caption(rows, tables), draw(rows, columns))


def _shown(rows: pl.DataFrame) -> pl.DataFrame:
    """The two metrics of the first named contrasts, through both maps, of estimates."""
    about = pl.col("metric").is_in(list(METRICS)) & pl.col("map").is_in(list(MAPS.values()))
    kept = rows.filter(about, pl.col("control").is_null(), group="named", role="estimate")
    names = sorted(kept["contrast"].unique().to_list())[:MOST]
    return kept.filter(pl.col("contrast").is_in(names))


def draw(rows: pl.DataFrame, columns: int) -> Figure:
    """A panel for each contrast and metric; of one column of a page, contrasts below each other."""
    contrasts = sorted(rows["contrast"].unique().to_list())
    with for_print():
        shape = (2, len(contrasts)) if columns == 2 else (len(contrasts), 2)
        figure, cells = sheet(*shape, columns, 1.35 if columns == 2 else 1.2, sharex=True)
        for place, contrast in enumerate(contrasts):
            for line, metric in enumerate(METRICS):
                axes = cells[line][place] if columns == 2 else cells[place][line]
                _panel(axes, rows.filter(contrast=contrast, metric=metric), metric)
                _label(axes, contrast, metric, (place, line), columns)
        figure.supxlabel("dose", fontsize=7)
        figure.legend(handles=handles(LOOKS), loc="outside upper center", ncols=2)
        return settle(figure)


def _label(axes: Axes, contrast: str, metric: str, at: tuple[int, int], columns: int) -> None:
    place, line = at
    name = plain(contrast.replace("_", " "))
    if columns == 2:
        axes.set_title(name if line == 0 else "")
        axes.set_ylabel(METRICS[metric] if place == 0 else "", fontsize=6)
    else:
        axes.set_title(METRICS[metric] if place == 0 else "", fontsize=6)
        axes.set_ylabel(name if line == 0 else "")


def _panel(axes: Axes, rows: pl.DataFrame, metric: str) -> None:
    """Every directed pair at every dose, and the median of each dose as a line; 1 is the own vector."""
    for place, (use, name) in enumerate(MAPS.items()):
        own = rows.filter(map=name).sort("dose", "source", "target")
        shift = 0.94 if place == 0 else 1.06
        inside = own if metric == RATIO else own.filter(pl.col("value").is_between(LEAST, GREATEST))
        look = LOOKS[use]
        axes.plot(inside["dose"] * shift, inside["value"], linestyle="", markersize=1.8, alpha=0.75, **look)
        middle = own.group_by("dose").agg(pl.col("value").median()).sort("dose")
        axes.plot(middle["dose"] * shift, middle["value"], color=look["color"], linewidth=1.0)
    axes.axhline(1, color=INK, linestyle=":", linewidth=0.9)
    doses = sorted(rows["dose"].unique().to_list())
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(doses))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda dose, _: f"{dose:g}"))
    if metric == RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    else:
        axes.set_ylim(LEAST - 0.1, GREATEST + 0.1)


def _caption(rows: pl.DataFrame, tables: Mapping[str, pl.DataFrame]) -> str:
    sites = [place_name(site) for site in rows["site"].unique().sort().to_list()]
    beyond = rows.filter(~pl.col("value").is_between(LEAST, GREATEST), metric=EFFICIENCY).height
    return " ".join(
        [
            f"Vectors of one member added to another at {listed(sites)} at every token, as they are and carried "
            "through R: one dot a directed pair and dose, a line their median.",
            "The paper's ratio: KL from the unsteered answers over that of the member's own vector; it knows no sign, "
            "so that 10 may be ten times the harm. The effect is the change of the log-odds of the target, in shares "
            "of what the own vector does; dotted is 1, and below 0 the effect is the reverse.",
            *([f"{counted(beyond, 'effect')} beyond the axis not drawn."] if beyond else []),
            "Where the own vector does nothing that is surely there, there is no ratio.",
            study_behind(rows, tables.get("ladder", pl.DataFrame(schema=rows.schema)), ("fit", "eval")),
            "Intervals stand in the table.",
        ]
    )
