"""Which of the paper's four bars does the cohort pass, and which would a decoy pass too?"""

import math

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from polymorph.components.decoys import AVERAGED, DECOYS, SWAPPED
from polymorph.plotting.captions import Pairs
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import INK, grid, style
from polymorph.plotting.wording import DASH, between, number
from polymorph.studies.bars.claims import BOUNDS, bar_values
from polymorph.studies.bars.divergence import ACROSS, WITHIN
from polymorph.studies.bars.separation import ALL, SMALL

NAME, TITLE = "bars", "The paper's four bars, of members and of decoys"
BLUE, RED = "#0072b2", "#d55e00"
MEMBERS = "members"
LABELS = {
    MEMBERS: "members",
    AVERAGED: "averaged\nunembedding",
    SWAPPED: "swapped layers",
    **{f"noise_{share:g}": f"noise {share:.0%}" for share in (0.01, 0.1, 1.0)},
}
SCOPES = {WITHIN: (-0.16, "o", True), ACROSS: (0.16, "o", False)}
FLOOR = 1e-6
"""Values below are drawn here."""
AXES = {"B": "KL, nats", "P": "largest MSE", "C": "1 − r", "Pr": "1 − r"}


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """From the rows alone, which count their own documents and tokens."""
    if rows.filter(pl.col("bar").is_not_null()).is_empty():
        return Missing(NAME, TITLE, "No bar was held against anything: that needs members that are models.")
    return Plate(NAME, TITLE, _caption(rows), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A panel a bar; a row for the members, and one for every kind of decoy. Left of the dashed line is passed."""
    bars = [bar for bar in BOUNDS if rows.filter(bar=bar).height]
    kinds = [MEMBERS, *(name for name in DECOYS if name in rows["decoy"].to_list())]
    with style():
        figure, (panels,) = grid(1, len(bars), 1.9 + 0.42 * len(kinds), sharex=False)
        for axes, bar in zip(panels, bars, strict=True):
            for scope in SCOPES:
                _dots(axes, bar, scope, bar_values(rows, bar, scope), kinds)
            _axis(axes, bar)
            axes.set_title(f"{bar}{_separations(rows, bar)}", fontsize=9.5)
        panels[0].set_yticks(range(len(kinds)), [LABELS.get(name, name) for name in kinds])
        panels[0].set_ylim(len(kinds) - 0.5, -0.5)
        figure.legend(handles=_handles(), loc="outside upper left", ncols=3)
        return settle(figure)


def _shown(bar: str, values: np.ndarray) -> np.ndarray:
    """Correlations by how far below 1 they are: the smaller, the better, in every panel."""
    return np.clip(values if bar in SMALL else 1 - values, FLOOR, None)


def _dots(axes: Axes, bar: str, scope: str, values: pl.DataFrame, kinds: list[str]) -> None:
    offset, marker, filled = SCOPES[scope]
    for row, kind in enumerate(kinds):
        own = values.filter(pl.col("decoy").fill_null(MEMBERS) == kind).sort("source", "target")
        if own.is_empty():
            continue
        colour = BLUE if kind == MEMBERS else RED
        y = row + offset + (np.linspace(-0.1, 0.1, own.height) if own.height > 1 else np.zeros(1))
        ends = [_shown(bar, own[side].to_numpy()) for side in ("low", "high")]
        axes.hlines(y, *ends, color=colour, linewidth=0.9, alpha=0.5)
        axes.plot(
            _shown(bar, own["value"].to_numpy()),
            y,
            marker,
            color=colour,
            mfc=colour if filled else "white",
            markersize=4,
        )


def _axis(axes: Axes, bar: str) -> None:
    """Logarithmic, with the bound; every second or third power of ten has a label."""
    bound = BOUNDS[bar]
    at = bound.value if bar in SMALL else 1 - bound.value
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = min(low, at / 3), max(high, at * 3)
    axes.set_xlim(low, high)
    axes.axvline(at, color=INK, linewidth=1.1, linestyle=(0, (4, 3)), zorder=0.9)
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    marks = [10.0**power for power in powers]
    axes.xaxis.set_major_locator(FixedLocator(marks[:: max(1, -(-len(marks) // 3))]))
    axes.xaxis.set_major_formatter(FuncFormatter(_power))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(AXES[bar])
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def _power(value: float, _: int) -> str:
    return f"{value:g}" if value >= 0.01 else f"1e−{-round(math.log10(value))}"


def _separations(rows: pl.DataFrame, bar: str) -> str:
    told = []
    for scope in SCOPES:
        value = rows.filter(bar=bar, scope=scope, metric="auc", decoy=ALL)["value"]
        told.append(number(value[0], 2) if len(value) else DASH)
    return f"   AUC {' / '.join(told)}"


def _handles() -> list[Line2D]:
    return [
        Line2D([], [], linestyle="", marker="o", color=INK, ms=4.5, label="within: a member by itself"),
        Line2D(
            [], [], linestyle="", marker="o", color=INK, mfc="white", ms=4.5, label="across: against a member"
        ),
        Line2D([], [], color=INK, linewidth=1.1, linestyle=(0, (4, 3)), label="bound: passed to the left"),
    ]


def _caption(rows: pl.DataFrame) -> str:
    pairs = Pairs.of(rows)
    counts = [
        f"bar {bar}: {between(own['n_documents'].to_list(), 'document')}, {between(own['n_tokens'].to_list(), 'token')}"
        for bar in BOUNDS
        if (own := _counting(rows, bar)).height
    ]
    return " ".join(
        [
            "The numbers of the paper's four bars, of members (blue) and of decoys of them (red), with 95 % intervals.",
            "B is the KL divergence from the algorithm's labels, or between two; P the largest mean squared difference "
            "of a weight after alignment; C how far below 1 the correlation of integrated gradients with effects of "
            "components is; Pr the same of components ablated together.",
            f"Bounds were set before: {', '.join(_told(bar) for bar in BOUNDS)}. Values below 1e−6 are drawn there.",
            "A decoy within is held against the algorithm, or its own predictions; across, against the member it was "
            "made from, as another member is. AUC is the chance that a bar puts a member before a decoy, ½ if it knows "
            "nothing, within / across: a bar that decoys pass as well says nothing when members pass it.",
            "C within a member cannot fail for any network, and neither C nor Pr knows in which basis a stream is "
            "written.",
            f"Data: {pairs}; {'; '.join(counts)}.",
            "Intervals are by a delete-one-block jackknife over documents; P has none.",
        ]
    )


def _told(bar: str) -> str:
    return f"{bar} {'below' if BOUNDS[bar].below else 'above'} {BOUNDS[bar].value:g}"


def _counting(rows: pl.DataFrame, bar: str) -> pl.DataFrame:
    """What members, not decoys, were measured on."""
    own = pl.concat([bar_values(rows, bar, scope) for scope in SCOPES])
    return own.filter(pl.col("decoy").is_null(), pl.col("n_documents").is_not_null())
