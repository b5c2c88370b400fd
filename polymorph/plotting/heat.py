"""A matrix of numbers as coloured cells with the numbers in them."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgb

from polymorph.plotting.style import INK
from polymorph.plotting.wording import number

_DARK = 0.55  # luminance below which the number in a cell is white


def shades(name: str) -> Colormap:
    """A sequential map of one hue that starts light, but not white: an empty cell is white."""
    whole = colormaps[name]
    return LinearSegmentedColormap.from_list(f"{name} from 0.06", whole(np.linspace(0.06, 0.95, 64)))


def cells(
    axes: Axes,
    values: np.ndarray,
    colours: Colormap,
    low: float,
    high: float,
    *,
    size: float,
    digits: int = 2,
) -> QuadMesh:
    """Cells [rows columns]; NaN stays empty, and what lies outside `low` to `high` has the colour of the end."""
    edges = (np.arange(n + 1) - 0.5 for n in values.shape[::-1])
    mesh = axes.pcolormesh(
        *edges, np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=high, edgecolor="white", lw=1
    )
    scale = ScalarMappable(Normalize(low, high, clip=True), colours)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if _luminance(to_rgb(scale.to_rgba(value))) < _DARK else INK
            text = number(value, 2 if abs(value) < 2 else 1 if abs(value) < 10 else 0)
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return mesh


def _luminance(colour: tuple[float, float, float]) -> float:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue
