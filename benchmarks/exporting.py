"""A finished member of a cohort, reduced to what can be committed: a cohort folder again, which opens like any other.

Published folders are copied byte for byte, so their digests still verify. The log keeps evaluations, starts and
ends, and the training loss of every 1,000th step. The live rows of a pair are one Parquet file.
"""

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from polymorph.store import Cohort, Member, canonical, durable, files
from polymorph.store.names import step_name
from polymorph.store.process_liveness import draft_name

LARGEST = 36_000_000
"""Bytes of everything that is exported."""
STEPS = (0, 1000, 30_000, 58_000)
"""Checkpoints that the paper's analyses read, beside the last and the best."""
TRAIN_EVERY = 1000
DIGITS = 6
"""Significant digits of the numbers of a log."""
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
    finished = [member for member in cohort.members() if _state(member) == "completed"]
    if not finished:
        return []
    folder = target / cohort.name
    durable.make_parents(folder / "members")
    new = _file(folder / "cohort.json", (cohort.folder / "cohort.json").read_bytes(), target, limit)
    there = Cohort.open(folder)
    there.sweep()
    for member in finished:
        if not is_exported(there.member(member.seed), exported_steps(member)):
            new.append(_export_member(member, there, target, limit))
    return new + _export_pairs(cohort, there, target, limit)


def is_exported(member: Member, steps: Sequence[int]) -> bool:
    """Whether the exported member is there whole, with these checkpoints; every digest is verified."""
    try:
        there = [member.read_step(step).step for step in member.steps()]
        return _state(member) == "completed" and bool(member.rows()) and there == list(steps)
    except RunError:
        return False


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


def _check_room(target: Path, more: int, what: str, limit: int) -> None:
    if (whole := exported_bytes(target) + more) > limit:
        raise RunError(f"{what} is not exported: {target} would hold {whole:,} bytes of at most {limit:,}")


def _file(path: Path, data: bytes, target: Path, limit: int) -> list[str]:
    """The path, if the file had to be made."""
    if path.exists():
        return []
    _check_room(target, len(data), path.name, limit)
    durable.create_file(path, data)
    return [str(path.relative_to(target))]


def _state(member: Member) -> str | None:
    status = member.status()
    return None if status is None else status.state


# Members.


def _export_member(member: Member, there: Cohort, target: Path, limit: int) -> str:
    contents = dict(_contents(member))
    _check_room(target, sum(map(len, contents.values())), member.name, limit)
    folder = there.member(member.seed).folder
    draft = folder.parent / draft_name()
    try:
        files.make_folder(draft)
        for name, data in contents.items():
            durable.make_folders((draft / name).parent, draft)
            durable.write_new(draft / name, data)
        if folder.exists():  # part of it was removed or damaged since
            durable.remove(folder)
        durable.rename_new(draft, folder)
    finally:
        durable.drop(draft)
    return str(folder.relative_to(target))


def _contents(member: Member) -> Iterator[tuple[str, bytes]]:
    """Names below the member's folder, with their bytes."""
    for step in exported_steps(member):
        member.read_step(step)  # verified before it is copied
        yield from _folder(member.folder, f"steps/{step_name(step)}")
    yield "rows.jsonl", b"".join(canonical(row) + b"\n" for row in reduced(member.rows()))
    for name in ("config.json", "status.json"):
        yield name, (member.folder / name).read_bytes()


def _folder(root: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted((root / name).iterdir()):
        yield f"{name}/{path.name}", path.read_bytes()


def exported_steps(member: Member) -> list[int]:
    """The paper's steps, the last and the best; only what is there."""
    steps = member.steps()
    wanted = {*STEPS, steps[-1], member.best_step()}
    return [step for step in steps if step in wanted]


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


# The log.


def reduced(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The log without most training rows, without what a resumed run repeated, and with rounded numbers."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, row in enumerate(rows):
        kind, step = row.get("kind"), row.get("step", 0)
        if kind == "train" and step % TRAIN_EVERY:
            continue
        key = (kind, step) if kind in ("train", "evaluation") else (kind, step, number)
        kept[key] = _short(row, first=not any(name[0] == "start" for name in kept))
    return list(kept.values())


def _short(row: Mapping[str, Any], first: bool) -> dict[str, Any]:
    if row.get("kind") in ("train", "evaluation"):
        return {name: _rounded(value) for name, value in row.items()}
    if row.get("kind") == "start":
        told = ("kind", "step", "seed", "resumed_from", "code_version", "packages", "python")
        own = dict(row) if first else {name: row[name] for name in told if name in row}
        if isinstance(own.get("cohort"), Mapping):  # where the cohort lay is nobody's concern
            own["cohort"] = {**own["cohort"], "root": "cohorts"}
        return own
    trace = row.get("traceback")
    return {**row, "traceback": str(trace).strip().splitlines()[-1]} if trace else dict(row)


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


# Pairs.


def _export_pairs(cohort: Cohort, there: Cohort, target: Path, limit: int) -> list[str]:
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
            new += _file(_trajectory(there, *pair), encoded(rows), target, limit)
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
