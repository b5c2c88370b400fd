"""How does a member turn while it trains? R² and the angle of turn between its own checkpoints."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import R2_DEFINITION
from polymorph.plotting.heat import cells, shades
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import short_step, site_grid, style
from polymorph.plotting.table_rows import at_site, measured, scores
from polymorph.plotting.wording import between, counted, listed

NAME, TITLE = "trajectory", "A member against its own earlier self"


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Step by step, a panel a site; the rows count their own documents and tokens."""
    if scores(rows, "orthogonal", "ceiling").is_empty():
        return Missing(NAME, TITLE, "No member was compared with its own earlier checkpoints.")
    return Plate(NAME, TITLE, _caption(rows), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """Above the diagonal R² of the orthogonal map from the row's step to the column's, below the angle."""
    scored, turned = scores(rows, "orthogonal", "ceiling"), measured(rows, "angle_on_support", "ceiling")
    sites, steps = sites_in_order(rows), _steps(rows)
    size = max(3.0, min(6.5, 47 / len(steps)))
    with style():
        figure, panels = site_grid(sites, panel_height=2.7)
        for axes, site in zip(panels, sites, strict=True):
            r2 = cells(axes, _matrix(at_site(scored, site), steps), shades("Blues"), 0, 1, size=size)
            below = _matrix(at_site(turned, site), steps).T
            angle = cells(axes, below, shades("Oranges"), 0, np.pi / 2, size=size)
        labels = [short_step(step) for step in steps]
        panels[0].set_xticks(range(len(steps)), labels)
        panels[0].set_yticks(range(len(steps)), labels)
        panels[0].set_ylim(len(steps) - 0.5, -0.5)
        for axes in panels:
            axes.tick_params(labelsize=8)
            axes.tick_params(axis="x", labelrotation=60)
        _bars(figure, panels, r2, angle)
        figure.supxlabel("training step", fontsize=10)
        figure.supylabel("training step", fontsize=10)
        return settle(figure)


def _bars(figure: Figure, panels: list[Axes], r2: QuadMesh, angle: QuadMesh) -> None:
    look: dict[str, Any] = {"location": "top", "aspect": 60, "pad": 0.012, "shrink": 0.8}
    figure.colorbar(r2, ax=panels, label="above the diagonal: R² of the orthogonal map", **look)
    bar = figure.colorbar(
        angle, ax=panels, label="below the diagonal: angle of turn on the support, rad", **look
    )
    bar.set_ticks([0, np.pi / 4, np.pi / 2], labels=["0", "π/4", "π/2"])


def _steps(rows: pl.DataFrame) -> list[int]:
    return sorted({*rows["source_step"].drop_nulls(), *rows["target_step"].drop_nulls()})


def _matrix(rows: pl.DataFrame, steps: list[int]) -> np.ndarray:
    """Medians over members [step step], from the row's step to the column's; NaN where there are none."""
    values = np.full((len(steps), len(steps)), np.nan)
    medians = rows.group_by("source_step", "target_step").agg(pl.col("value").median())
    for early, late, value in medians.iter_rows():
        values[steps.index(early), steps.index(late)] = value
    return values


def _caption(rows: pl.DataFrame) -> str:
    seeds, steps = sorted(rows["source"].unique().to_list()), _steps(rows)
    counts = [
        f"{split} split: {between(here['n_documents'].drop_nulls().to_list(), 'document')}, "
        f"{between(here['n_tokens'].drop_nulls().to_list(), 'token')}"
        for split in ("fit", "eval")
        if not (here := rows.filter(pl.col("split") == split)).is_empty()
    ]
    return " ".join(
        [
            "Median over members of a member's checkpoint against a later one of its own: above the diagonal R² of "
            "the orthogonal map from the row's step to the column's (the colour scale ends at 0), below it the "
            "mean angle of turn arccos(tr(R on its support)/r).",
            R2_DEFINITION,
            f"Data: {counted(len(seeds), 'seed')} ({listed(seeds)}), no pairs between seeds; "
            f"{counted(len(steps), 'step')} ({listed(f'{step:,}' for step in steps)}); {'; '.join(counts)}.",
            "The angle speaks of the r determined directions alone and is left out where there are none: an empty "
            "cell. π/2 is what directions that keep nothing of themselves have. The intervals of R² stand in the "
            "table; a median over few members has none.",
        ]
    )
