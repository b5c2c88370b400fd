"""Does the SAE of one checkpoint explain another of the same member? Explained variance, step by step."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.plotting.captions import INTERVAL
from polymorph.plotting.heat import cells, shades
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.sae_panels import Place, places_of, used
from polymorph.plotting.style import grid, short_step, style
from polymorph.plotting.wording import between, counted, listed, number, plain

NAME, TITLE = "checkpoint_transfer", "SAEs on other checkpoints of their own member"
EV = "explained_variance"
MAPS = {"identity": "as it is (naive)", "orthogonal": "through R and back"}


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Two matrices a site; the rows count their own documents and tokens."""
    if rows.filter(metric=EV, role="estimate").is_empty():
        return Missing(NAME, TITLE, "No SAE was used on another checkpoint of its member.")
    return Plate(NAME, TITLE, _caption(rows), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """Rows are the steps of SAEs, columns those that they are used on; on the diagonal, their own."""
    places, steps = places_of(rows), steps_of(rows)
    size = max(3.5, min(7.0, 64 / len(steps)))
    with style():
        height = max(1.5, 0.25 * len(steps) + 0.55)
        figure, panels = grid(len(places), len(MAPS), height * len(places) + 1.6)
        for both, place in zip(panels, places, strict=True):
            for axes, name in zip(both, MAPS, strict=True):
                mesh = cells(axes, _matrix(place.of(rows), name, steps), shades("Blues"), 0, 1, size=size)
            _name(both, place)
        labels = [short_step(step) for step in steps]
        first = panels[0][0]
        first.set_xticks(range(len(steps)), labels)
        first.set_yticks(range(len(steps)), labels)
        first.set_ylim(len(steps) - 0.5, -0.5)
        look: dict[str, Any] = {"location": "top", "aspect": 60, "pad": 0.012, "shrink": 0.8}
        every = [axes for both in panels for axes in both]
        figure.colorbar(mesh, ax=every, label="explained variance, centred", **look)
        figure.supxlabel("training step on whose activations the SAE is used", fontsize=10)
        figure.supylabel("training step of the SAE", fontsize=10)
        return settle(figure)


def steps_of(rows: pl.DataFrame) -> list[int]:
    """All steps that stand in the rows, in order."""
    return sorted({*rows["source_step"].drop_nulls(), *rows["target_step"].drop_nulls()})


def _name(both: list[Axes], place: Place) -> None:
    """The site above the first matrix and the map above each."""
    family = f"{plain(place.family)}, " if place.several else ""
    for at, (axes, what) in enumerate(zip(both, MAPS.values(), strict=True)):
        axes.set_title(f"{family}{plain(place.site)}\n{what}" if at == 0 else f"\n{what}", fontsize=9.5)


def _matrix(rows: pl.DataFrame, name: str, steps: list[int]) -> np.ndarray:
    """Medians over members [step step], from the SAE's step to the activations'; NaN where there are none."""
    values = np.full((len(steps), len(steps)), np.nan)
    for found in (used(rows, EV, "centred", map=name), used(rows, EV, "centred", role="ceiling")):
        medians = found.group_by("source_step", "target_step").agg(pl.col("value").median())
        for source, target, value in medians.iter_rows():
            values[steps.index(source), steps.index(target)] = value
    return values


def _caption(rows: pl.DataFrame) -> str:
    shown = rows.filter(metric=EV, convention="centred")
    seeds, steps = sorted(shown["source"].unique().to_list()), steps_of(rows)
    counts = (
        f"eval split: {between(sorted(shown['n_documents'].drop_nulls().to_list()), 'document')}, "
        f"{between(sorted(shown['n_tokens'].drop_nulls().to_list()), 'token')}"
    )
    return " ".join(
        [
            "Median over members of the explained variance of the SAE of one checkpoint (row) on the activations of "
            "another of the same member (column), left as it is and right through the orthogonal map there and back.",
            "Centred: 1 − Σ‖x−x̂‖² / Σ‖x−x̄‖², with x̄ the mean of each dimension; the colour scale ends at 0, and the "
            "number in a cell says what lies below.",
            "On the diagonal, the same in both, is the ceiling: every SAE on the checkpoint that it was trained on. "
            "Empty cells have no SAE, or none of a member that has both.",
            f"Data: {counted(len(seeds), 'seed')} ({listed(seeds)}), no pairs between seeds; "
            f"{counted(len(steps), 'step')} ({listed(f'{step:,}' for step in steps)}); maps are fitted on the fit "
            f"split and scored on the {counts}.",
            f"A median over few members has no interval. In the table, {INTERVAL[0].lower()}{INTERVAL[1:]}",
            _control(shown),
        ]
    )


def _control(shown: pl.DataFrame) -> str:
    """What a map that only matches covariances explains less than R."""
    alone = "A map there and back matches covariances, which alone makes an SAE explain much:"
    both = [
        used(shown, EV, "centred", role=role, map="orthogonal", control=control)
        for role, control in (("estimate", None), ("control", "covariance_only"))
    ]
    gaps = both[0].join(both[1], on=["sae", "site", "source", "source_step", "target_step"])
    if gaps.is_empty():
        return f"{alone} there is no control for that here, see the figure of SAEs on other members."
    gap = (gaps["value"] - gaps["value_right"]).median()
    return (
        f"{alone} the control (covariance only, in the table) matches eigenbases with random signs and has not seen "
        f"which token goes with which; R explains {number(float(gap), 2)} more (median)."  # type: ignore[arg-type]
    )
