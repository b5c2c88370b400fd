"""How figures look: one colour for each map everywhere (Okabe and Ito 2008), type, and the grid of sites."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from polymorph.alignment.families import FAMILIES
from polymorph.plotting.wording import plain

INK = "#222222"
CONTROL_COLOURS = {
    "tokens_permuted": "#cc79a7",
    "documents_permuted": "#d55e00",
    "covariance_only": "#7b5aa6",
    "matched_gaussian": "#8a5a2b",
    "haar_draw": "#8c8c8c",
}
CONTROL_NAMES = {"matched_gaussian": "matched Gaussian", "haar_draw": "Haar draw"}
CONTROL_MARKERS = {
    "tokens_permuted": "D",
    "documents_permuted": "s",
    "covariance_only": "^",
    "matched_gaussian": "v",
    "haar_draw": "X",
}
CEILING = "#222222"
NAMED_SEEDS = 10  # more lines than this get no legend
R2_FLOOR = -2.0  # scores below are off the scale, and captions count them
_SQUEEZE = 4  # below 0 a score is no better than the mean: that half of the axis gets less room
R2_SCALE = f"Below 0, where a map is worse than the mean, the axis is squeezed by {_SQUEEZE}."

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": "#777777",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "polymorph",
    "path.simplify": True,
}


def style() -> Any:
    """The context in which figures are drawn and saved; nothing global outlives it."""
    return rc_context(STYLE)


def map_colour(name: str) -> str:
    """The colour of a map; grey for one without a place in the palette."""
    return FAMILIES[name].colour if name in FAMILIES else "#999999"


def seed_colours(seeds: Sequence[int]) -> dict[int, str]:
    """Seed → a colour between dark blue and green, apart from the colours of maps."""
    shades, last = colormaps["viridis"], max(1, len(seeds) - 1)
    return {seed: to_hex(shades(0.85 * i / last)) for i, seed in enumerate(sorted(seeds))}


def control_name(name: str) -> str:
    """A control as it is read."""
    return CONTROL_NAMES.get(name, name.replace("_", " "))


def grid(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure of 8 inches with shared axes and room for its labels."""
    figure = Figure(figsize=(8.0, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    axes = figure.subplots(rows, columns, squeeze=False, **{"sharex": True, "sharey": True} | options)
    return figure, [list(row) for row in axes]


def site_grid(sites: Sequence[str], panel_height: float = 2.4) -> tuple[Figure, list[Axes]]:
    """One panel a site, in reading order, with shared axes; cells that are left over are empty."""
    columns = min(len(sites), 2 if len(sites) in (2, 4) else 3)
    rows = -(-len(sites) // columns)
    figure, cells = grid(rows, columns, panel_height * rows + 1.2)
    panels = [axes for row in cells for axes in row]
    for axes in panels[len(sites) :]:
        axes.remove()
    for axes in panels[max(0, len(sites) - columns) : len(sites)]:
        axes.tick_params(labelbottom=True)
    for axes, site in zip(panels, sites, strict=False):
        axes.set_title(plain(site))
    return figure, panels[: len(sites)]


def site_rows(sites: Sequence[str], widths: Sequence[float], row: float = 0.46) -> tuple[Figure, list[Axes]]:
    """Panels beside each other that share their rows: one row a site, the first at the top."""
    height = row * len(sites) + 1.5
    figure, cells = grid(1, len(widths), height, sharex=False, gridspec_kw={"width_ratios": list(widths)})
    for axes in cells[0]:
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        for edge in range(1, len(sites)):
            axes.axhline(edge - 0.5, color="#ececec", linewidth=0.8, zorder=0.5)
    cells[0][0].set_yticks(range(len(sites)), [plain(site) for site in sites])
    cells[0][0].set_ylim(len(sites) - 0.5, -0.5)
    return figure, cells[0]


def step_axis(axes: Axes, last: int) -> None:
    """Training steps, linear from 0 to 1 and logarithmic above."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.35)
    axes.set_xlim(-0.12, max(last, 1) * 1.15)
    powers = [10**k for k in range(19) if 10**k <= max(last, 1)]
    axes.xaxis.set_major_locator(FixedLocator([0, *(powers if len(powers) <= 4 else powers[::2])]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: short_step(step)))


def r2_axis(axes: Axes, low: float) -> None:
    """R² upwards, between `low` (but not below `R2_FLOOR`) and 1, squeezed below 0."""
    axes.set_yscale("function", functions=(_squeezed, _stretched))
    axes.set_ylim(_floor(low), 1.14)
    axes.yaxis.set_major_locator(FixedLocator([-2, -1, 0, 0.25, 0.5, 0.75, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(_with_minus))


def r2_along(axes: Axes, low: float) -> None:
    """R² to the right, as `r2_axis`."""
    axes.set_xscale("function", functions=(_squeezed, _stretched))
    beyond = 0.7 if low < R2_FLOOR else 0.0  # room for what stands for scores off the scale
    axes.set_xlim(_floor(low) - beyond, 1.08)
    axes.xaxis.set_major_locator(FixedLocator([-2, 0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(_with_minus))


def below_floor(axes: Axes, place: float, below: int, colour: str) -> None:
    """An arrow with their number for scores that are off the scale of `r2_along`."""
    axes.plot(R2_FLOOR - 0.55, place, "<", color=colour, markersize=5)
    axes.annotate(
        f"{below}",
        (R2_FLOOR - 0.55, place),
        (5, -0.5),
        textcoords="offset points",
        va="center",
        color=colour,
        fontsize=8,
    )


def _floor(low: float) -> float:
    return max(min(low, 0.0) - 0.15, R2_FLOOR)


def _with_minus(value: float, _: int) -> str:
    return f"{value:g}".replace("-", "−")


def zero_line(axes: Axes) -> None:
    """R² = 0: as good as the mean."""
    axes.axhline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)


def _squeezed(values: np.ndarray) -> np.ndarray:
    return np.where(values < 0, values / _SQUEEZE, values)


def _stretched(values: np.ndarray) -> np.ndarray:
    return np.where(values < 0, values * _SQUEEZE, values)


def short_step(step: float) -> str:
    """0, 1, 10, 100, 1k, 10k, 100k, 1M."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if step >= unit:
            return f"{step / unit:g}{sign}"
    return f"{step:g}"
