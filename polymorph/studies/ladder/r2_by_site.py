"""How far does each family of maps take one member to another? R² by site and map at the last step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.alignment.families import in_ladder_order
from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import INTERVAL, R2_DEFINITION, data_behind, steps_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import (
    CEILING,
    CONTROL_COLOURS,
    CONTROL_MARKERS,
    R2_FLOOR,
    R2_SCALE,
    below_floor,
    control_name,
    map_colour,
    r2_along,
    site_grid,
    style,
)
from polymorph.plotting.table_rows import at_last_steps, at_site, scores
from polymorph.plotting.wording import counted, number, plain

NAME, TITLE = "r2_by_site", "R² by site and map at the last step"
CONTROLS = {
    "tokens_permuted": "fitted on tokens paired at random",
    "documents_permuted": "fitted on documents paired at random with positions kept",
    "covariance_only": "eigenbases matched with random signs",
    "matched_gaussian": "fitted between independent Gaussian data of the same spectra",
    "haar_draw": "a uniformly random matrix",
}
RASTERISED_FROM = 100  # dots in a column; a vector file of many more is slow to open


@dataclass(frozen=True)
class Series:
    """One row of a panel: a map, an orthogonal map that has not seen the true pairs, or the ceiling."""

    label: str
    colour: str
    map: str
    role: str = "estimate"
    control: str | None = None

    def of(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Its rows, one a directed pair."""
        return scores(frame, self.map, self.role, self.control)


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Every pair and its medians; `Missing` without estimates."""
    last = at_last_steps(rows)
    estimates = last.filter((pl.col("role") == "estimate") & (pl.col("metric") == "r2"))
    if estimates.is_empty():
        return Missing(NAME, TITLE, "No pair of members was compared, so there is no R² to show.")
    return Plate(NAME, TITLE, _caption(last, estimates), draw(last))


def draw(last: pl.DataFrame) -> Figure:
    """A panel a site, a row a map; `last` holds the rows of the last steps."""
    series = _series(last)
    sites = sites_in_order(last.filter(pl.col("role") == "estimate"))
    with style():
        figure, panels = site_grid(sites, panel_height=0.19 * len(series) + 0.5)
        for axes, site in zip(panels, sites, strict=True):
            rows = at_site(last, site)
            for place, one in enumerate(series):
                _row(axes, place, one, one.of(rows))
            _ceiling(axes, scores(rows, "orthogonal", "ceiling"))
            axes.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
            axes.grid(False, axis="y")
            axes.grid(True, axis="x")
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(series)), [plain(one.label) for one in series])
        panels[0].set_ylim(len(series) - 0.4, -0.6)
        r2_along(panels[0], min(float(one.of(last)["value"].min()) for one in series))  # type: ignore[arg-type]
        figure.supxlabel("R² on the eval split", fontsize=10)
        return settle(figure)


def _series(last: pl.DataFrame) -> list[Series]:
    estimates = last.filter((pl.col("metric") == "r2") & (pl.col("role") == "estimate"))
    names = in_ladder_order(estimates["map"].drop_nulls().to_list())
    maps = [Series(name.replace("_", " "), map_colour(name), name) for name in names]
    controls = [
        Series(control_name(control), colour, "orthogonal", "control", control)
        for control, colour in CONTROL_COLOURS.items()
    ]
    others = [*controls, Series("ceiling", CEILING, "orthogonal", "ceiling")]
    return maps + [one for one in others if not one.of(last).is_empty()]


def _controls(last: pl.DataFrame) -> Iterator[str]:
    for one in _series(last):
        if one.control:
            yield f"{one.label}, {CONTROLS[one.control]}"


def _row(axes: Axes, place: int, series: Series, rows: pl.DataFrame) -> None:
    """Dots with their whiskers, the median as a bar, and an arrow for what lies below the scale."""
    if rows.height == 0:
        return
    y = place + np.linspace(-0.22, 0.22, rows.height) if rows.height > 1 else np.array([float(place)])
    values = rows["value"].to_numpy()
    shown = values >= R2_FLOOR
    look: dict[str, Any] = {"color": series.colour, "rasterized": rows.height > RASTERISED_FROM}
    marker = CONTROL_MARKERS.get(series.control or "", "o")
    face = "none" if series.role == "control" else series.colour
    axes.plot(values[shown], y[shown], marker, markersize=3.4, alpha=0.6, mfc=face, **look)
    _whiskers(axes, y, rows, series.colour)
    median = float(rows["value"].median())  # type: ignore[arg-type]
    if median >= R2_FLOOR:
        axes.vlines(median, place - 0.36, place + 0.36, color=series.colour, linewidth=1.8)
    if not shown.all():
        below_floor(axes, place, int((~shown).sum()), series.colour)


def _whiskers(axes: Axes, y: np.ndarray, rows: pl.DataFrame, colour: str) -> None:
    known = (rows["low"].is_not_null() & (rows["low"] >= R2_FLOOR)).to_numpy()
    low, high = (rows[side].fill_null(0.0).to_numpy()[known] for side in ("low", "high"))
    axes.hlines(y[known], low, high, color=colour, linewidth=0.9, alpha=0.5)


def _ceiling(axes: Axes, rows: pl.DataFrame) -> None:
    """The median of the ceilings as a line down the panel."""
    if not rows.is_empty() and (median := float(rows["value"].median())) >= R2_FLOOR:  # type: ignore[arg-type]
        axes.axvline(median, color=CEILING, linewidth=1.0, linestyle=(0, (5, 2)), zorder=1)


def _caption(last: pl.DataFrame, estimates: pl.DataFrame) -> str:
    return " ".join(
        [
            f"Each dot is the R² of one directed pair at {steps_behind(estimates)}, a bar the median over "
            "pairs. Open marks are controls, orthogonal maps that have not seen the true pairs but are scored "
            f"on them: {'; '.join(_controls(last))}.",
            R2_SCALE,
            _ceiling_sentence(scores(last, "orthogonal", "ceiling")),
            R2_DEFINITION,
            f"Data: {data_behind(last)}",
            "Pairs share seeds: dots are not independent.",
            f"Thin whiskers, often smaller than their dot: {INTERVAL[0].lower()}{INTERVAL[1:]}"
            if estimates["low"].is_not_null().any()
            else "These rows hold no intervals (delete-one-block jackknife over documents: one block only).",
            *_off_scale(last),
        ]
    )


def _ceiling_sentence(ceilings: pl.DataFrame) -> str:
    if ceilings.is_empty():
        return "There is no ceiling: no seed was read at two steps."
    n = counted(ceilings["source"].n_unique(), "seed")
    twice = ceilings["target_step"].is_null().any()
    between = "and a second reading of it" if twice else "between its last two steps read"
    return f"The dashed line is the ceiling: the median orthogonal R² of one seed {between}, over {n}."


def _off_scale(last: pl.DataFrame) -> Iterator[str]:
    low = {one.label: one.of(last).filter(pl.col("value") < R2_FLOOR) for one in _series(last)}
    low = {label: rows for label, rows in low.items() if not rows.is_empty()}
    if low:
        each = ", ".join(f"{label} {rows.height}" for label, rows in low.items())
        lowest = number(min(float(rows["value"].min()) for rows in low.values()), 2)  # type: ignore[arg-type]
        total = sum(rows.height for rows in low.values())
        yield (
            f"Off the scale, below {number(R2_FLOOR, 0)}: {counted(total, 'dot')} ({each}; the lowest at "
            f"{lowest}); an arrow with their number stands for them."
        )
