"""The paper's cohorts reduced to what can be committed: see polymorph.store.reduced_copy; each within a budget.

The live rows of a pair are one Parquet file beside the members.
"""

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as parquet
import torch

from polymorph.errors import RunError
from polymorph.evidence.pairs import PairLabel
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.comparison_rows import ComparisonRows
from polymorph.store import Cohort, durable
from polymorph.store.reduced_copy import Room, completed, copy_reduced, create

LARGEST = 36_000_000
"""Bytes of everything that is exported."""
STEPS = (0, 1000, 30_000, 58_000)
"""Checkpoints that the paper's analyses read, beside the last and the best."""
MANTISSA = 16
"""Bits of the numbers of pairs: relative errors are below 2e-5."""
WORKING = frozenset({"analysis", "pairs", "wandb", "ported"})
"""What an analysis of the exported cohort writes beside it; it is not committed and does not count."""
TRAJECTORY = "trajectory"
NUMBERS = ("value", "low", "high")


def export_cohort(cohort: Cohort, target: Path, limit: int = LARGEST) -> list[str]:
    """Bring all completed members, and the pairs among them, to `target/<cohort>`; the paths that are new.

    What is there whole is left alone. `RunError` if `target` would hold more than `limit` bytes, and then what
    does not fit is not there.
    """
    room = partial(_check_room, target, limit)
    new = copy_reduced(cohort, target, STEPS, room)
    if not completed(cohort):
        return []
    return new + _export_pairs(cohort, Cohort.open(target / cohort.name), target, room)


def exported_bytes(target: Path) -> int:
    """The size of all exported files below `target`."""
    return sum(path.stat().st_size for path in _exported_files(target))


def _exported_files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(".") or path.name in WORKING:
            continue
        if path.is_dir():
            yield from _exported_files(path)
        else:
            yield path


def _check_room(target: Path, limit: int, more: int, what: str) -> None:
    if (whole := exported_bytes(target) + more) > limit:
        raise RunError(f"{what} is not exported: {target} would hold {whole:,} bytes of at most {limit:,}")


def best_evaluation(
    rows: Iterable[Mapping[str, Any]], steps: Sequence[int] | None = None
) -> tuple[int, float] | None:
    """(step, least accuracy) of the best evaluation, at one of `steps`: by least accuracy, then by loss."""
    found = [
        (least_accuracy(row), -_loss(row), -row["step"])
        for row in rows
        if row.get("kind") == "evaluation" and (steps is None or row["step"] in steps) and _is_finite(row)
    ]
    return (-max(found)[2], max(found)[0]) if found else None


def least_accuracy(row: Mapping[str, Any]) -> float:
    """Over all heads and distributions of an evaluation."""
    return min(value or 0.0 for name, value in row.items() if "/accuracy/" in name)


def _is_finite(row: Mapping[str, Any]) -> bool:
    """Whether all of its numbers are; a log keeps others as null."""
    return all(value is not None for name, value in row.items() if name.startswith("eval/"))


def _loss(row: Mapping[str, Any]) -> float:
    return sum(value for name, value in row.items() if "/loss/" in name and value is not None)


# Pairs.


def _export_pairs(cohort: Cohort, there: Cohort, target: Path, room: Room) -> list[str]:
    """One file for each two exported members, and for each with its own earlier checkpoints."""
    seeds = [member.seed for member in there.members() if cohort.member(member.seed).steps()]
    missing = [
        pair
        for pair in itertools.combinations_with_replacement(seeds, 2)
        if not _trajectory(there, *pair).exists()
    ]
    if not missing:
        return []
    kept = ComparisonRows(Comparison.of(cohort, torch.device("cpu")))
    durable.make_folders(there.folder / TRAJECTORY, there.folder)
    new: list[str] = []
    for pair in missing:
        if rows := [row.to_dict() for row in kept.of(_checkpoints(kept, *pair))]:
            new += create(_trajectory(there, *pair), encoded(rows), target, room)
    return new


def _trajectory(there: Cohort, source: int, target: int) -> Path:
    return there.folder / TRAJECTORY / f"seed-{source:04d}--seed-{target:04d}.parquet"


def _checkpoints(kept: ComparisonRows, source: int, target: int) -> list[PairLabel]:
    """The pair at every step that both have."""
    both = (kept.comparison.cohort.member(seed).steps() for seed in (source, target))
    steps = sorted(set.intersection(*map(set, both)))
    pairs = [pair for step in steps for pair in kept.comparison.pairs_at(step, [source])]
    return [pair for pair in pairs if {pair.source, pair.target} == {source, target}]


def encoded(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Tidy rows as Parquet: numbers as float32 of `MANTISSA` bits, bounds of estimates alone, sorted by key."""
    table = pl.DataFrame(rows, infer_schema_length=None)
    bounds = [pl.when(pl.col("role") == "estimate").then(pl.col(name)).alias(name) for name in NUMBERS[1:]]
    keys = [name for name in table.columns if name not in NUMBERS]
    order = sorted(keys, key=lambda name: name.endswith("_step"))  # neighbours in time lie side by side
    table = table.with_columns(bounds).sort(order, nulls_last=True)
    table = table.with_columns(_shortened(table[name]) for name in NUMBERS)
    data = io.BytesIO()
    parquet.write_table(
        table.to_arrow(),
        data,
        compression="zstd",
        compression_level=19,
        use_dictionary=keys,
        column_encoding=dict.fromkeys(NUMBERS, "BYTE_STREAM_SPLIT"),
    )
    return data.getvalue()


def _shortened(column: pl.Series) -> pl.Series:
    """Rounded to `MANTISSA` bits, so that the low bytes are zeros and take no room."""
    bits = column.fill_null(0.0).to_numpy().astype(np.float32).view(np.uint32).astype(np.uint64)
    low = 24 - MANTISSA
    rounded = (((bits + (1 << (low - 1))) >> low) << low).astype(np.uint32).view(np.float32)
    nothing = pl.Series(column.name, [None] * len(column), pl.Float32)
    return pl.Series(column.name, rounded).zip_with(column.is_not_null(), nothing)
