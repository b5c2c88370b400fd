"""Are two members one model up to the symmetries of their architecture?"""

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import (
    NO_CEILING,
    across,
    cell,
    joined,
    middle,
    nothing,
    shortened,
    tiny,
    told,
)
from polymorph.studies.study import Tables
from polymorph.studies.weights.figure import MAX, MEAN
from polymorph.studies.weights.search import COPY, GAUGE, IDENTITY, OWN_ROTATIONS, STREAM, UNTRAINED

STUDY = "weights"
MAPS = {IDENTITY: "as they are", STREAM: "R from activations", GAUGE: "full gauge"}
CONTROLS = {OWN_ROTATIONS: "own rotations (control)", UNTRAINED: "untrained (control)"}
BARRIER, APART = "loss_barrier", "relative_mse"


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """How far apart weights are after alignment, and the loss between members, beside controls and the ceiling."""
    if _of(rows, APART, GAUGE).is_empty():
        return nothing("No two members were compared in their weights.")
    columns = ("source", "relative squared difference", "loss barrier, nats")
    return Answer(
        joined([_apart(rows), _reached(rows), _barrier(rows), _copies(rows)]),
        columns,
        shortened(_lines(rows)),
    )


def _of(
    rows: pl.DataFrame, metric: str, name: str, role: str = "estimate", control: str | None = None
) -> pl.DataFrame:
    """The mean over groups, of what has groups."""
    group = MEAN if metric == APART else None
    about = pl.col("control").eq_missing(pl.lit(control)) & pl.col("group").eq_missing(pl.lit(group))
    return rows.filter(about, metric=metric, role=role, map=name).sort("source", "target")


def _lines(rows: pl.DataFrame) -> list[tuple[str, ...]]:
    kinds: list[tuple[str, str, str, str | None]] = []
    kinds += [(f"another member, {how}", name, "estimate", None) for name, how in MAPS.items()]
    kinds += [(how, GAUGE, "control", control) for control, how in CONTROLS.items()]
    kinds += [("its own previous checkpoint (ceiling)", GAUGE, "ceiling", None)]
    kinds += [("a copy under a random symmetry (ceiling)", GAUGE, "ceiling", COPY)]
    lines: list[tuple[str, ...]] = []
    for label, name, role, control in kinds:
        apart, barrier = (_of(rows, metric, name, role, control) for metric in (APART, BARRIER))
        if apart.height or barrier.height:
            lines.append((label, cell(apart), cell(barrier, _nats)))
    return lines


def _apart(rows: pl.DataFrame) -> str:
    parts = [(how, _of(rows, APART, GAUGE, "control", control)) for control, how in CONTROLS.items()]
    parts.append(("its own previous checkpoint (ceiling)", _of(rows, APART, GAUGE, "ceiling")))
    beside = [f"{how} {middle(some)}" for how, some in parts if some.height]
    told_of = f"; {', '.join(beside)}" if beside else "; controls and ceiling are missing"
    return (
        f"Aligned over the full gauge, two members differ by {across(_of(rows, APART, GAUGE))} of the "
        f"target's squared weights (mean over groups; 0 for copies, 2 for unrelated weights){told_of}."
    )


def _reached(rows: pl.DataFrame) -> str:
    most = float(_of(rows, APART, GAUGE)["value"].max())  # type: ignore[arg-type]
    reached = [
        how
        for control, how in CONTROLS.items()
        if (some := _of(rows, APART, GAUGE, "control", control)).height and float(some["value"].min()) <= most  # type: ignore[arg-type]
    ]
    return f"That is no evidence of common weights: {' and '.join(reached)} come as near." if reached else ""


def _barrier(rows: pl.DataFrame) -> str:
    own = _of(rows, BARRIER, GAUGE)
    if own.is_empty():
        return "The loss between members was not measured."
    ceiling = _of(rows, BARRIER, GAUGE, "ceiling")
    beside = (
        f"; to its own previous checkpoint {middle(ceiling, _nats)}"
        if ceiling.height
        else f". {NO_CEILING.rstrip('.')}"
    )
    return (
        f"On the straight way between them the loss rises by {across(own, _nats)} nats, by "
        f"{middle(_of(rows, BARRIER, IDENTITY), _nats)} as they are{beside}."
    )


def _nats(value: float) -> str:
    """0 where nothing is in the way: a barrier below it is a loss that falls between."""
    return "0" if abs(value) < 5e-4 else told(value)


def _copies(rows: pl.DataFrame) -> str:
    worst = rows.filter(control=COPY, map=GAUGE, metric="mse", group=MAX)["value"].max()
    if worst is None:
        return "No copy under a random symmetry was searched for, so whether the search works is not known."
    return f"A copy under a random symmetry is found again to {tiny(float(worst))}."  # type: ignore[arg-type]
