"""Values of many pairs as dots, in one row a site: what most figures of a study are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from polymorph.plotting.table_rows import at_site


@dataclass(frozen=True)
class Strip:
    """One series of dots; `offset` is its place in the row, of which −0.5 is the upper edge."""

    label: str
    colour: str
    marker: str = "o"
    filled: bool = True
    offset: float = 0.0
    spread: float = 0.09
    """Half the height over which the dots of a row are spread."""
    median: bool = True
    reach: float = 0.07
    """By how much the bar of the median stands out of the dots, on either side."""
    size: float = 4.2
    floor: float | None = None
    """What lies below is not drawn, and whiskers end here."""

    def draw(self, axes: Axes, sites: Sequence[str], frame: pl.DataFrame) -> None:
        """Dots with their intervals, where there are any, and a bar at the median of three or more."""
        for row, site in enumerate(sites):
            here = at_site(frame, site).sort("source", "target")
            if not here.is_empty():
                self._row(axes, row + self.offset, here)

    def _row(self, axes: Axes, y: float, rows: pl.DataFrame) -> None:
        values, n = rows["value"].to_numpy(), rows.height
        places = y + (np.linspace(-self.spread, self.spread, n) if n > 1 else np.zeros(1))
        floor = -np.inf if self.floor is None else self.floor
        shown = values >= floor
        known = rows["low"].is_not_null().to_numpy() & shown
        low, high = (rows[side].fill_null(0.0).to_numpy()[known] for side in ("low", "high"))
        axes.hlines(places[known], low.clip(floor), high, color=self.colour, linewidth=0.9, alpha=0.5)
        look: dict[str, Any] = {
            "color": self.colour,
            "mfc": self.colour if self.filled else "white",
            "alpha": 0.75,
        }
        axes.plot(values[shown], places[shown], self.marker, markersize=self.size, **look)
        if n > 2 and self.median and np.median(values) >= floor:
            reach = self.spread + self.reach
            axes.vlines(np.median(values), y - reach, y + reach, color=self.colour, linewidth=1.8)

    @property
    def handle(self) -> Line2D:
        """Its entry in a legend."""
        face = self.colour if self.filled else "white"
        return Line2D(
            [], [], linestyle="", marker=self.marker, color=self.colour, mfc=face, ms=5, label=self.label
        )
