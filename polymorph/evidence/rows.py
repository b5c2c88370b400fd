"""The tidy table of every study: its columns, their types, and its bytes."""

import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import polars as pl

Role = Literal["estimate", "control", "ceiling", "null"]
Key = str | int | float

COLUMNS: dict[str, type[pl.DataType]] = {
    "cohort": pl.String,
    "study": pl.String,
    "source": pl.Int64,
    "target": pl.Int64,
    "source_step": pl.Int64,
    "target_step": pl.Int64,
    "site": pl.String,
    "map": pl.String,
    "role": pl.String,
    "metric": pl.String,
    "convention": pl.String,
    "split": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n_documents": pl.Int64,
    "n_tokens": pl.Int64,
    "n_seeds": pl.Int64,
}
LIVE = "_live"
"""Ends the name of a study in rows that were made at a checkpoint, on less than the study takes: other numbers."""
ON_SUPPORT = "on_support"
"""A convention: of the determined directions alone."""
MEASURED = ("value", "low", "high", "n_documents", "n_tokens", "n_seeds")
"""The columns that are measured; all others, and the extra ones, are the key of a row."""


_STAGES = ("pre", "mid", "post")  # of a block, in the order of the computation


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a study, with what it is about; None where a column does not apply.

    `source` and `target` are seeds; `low` and `high` bound a 95 % interval; `extra` holds the further key
    columns that the study declares.
    """

    cohort: str
    study: str
    role: Role
    metric: str
    value: float
    source: int | None = None
    target: int | None = None
    source_step: int | None = None
    target_step: int | None = None
    site: str | None = None
    map: str | None = None
    convention: str | None = None
    split: str | None = None
    low: float | None = None
    high: float | None = None
    n_documents: int | None = None
    n_tokens: int | None = None
    n_seeds: int | None = None
    extra: Mapping[str, Key] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = (self.value, self.low, self.high)
        if not all(math.isfinite(number) for number in numbers if number is not None):
            raise ValueError(f"{self.metric} of {self.study} is not finite: value, low, high = {numbers}")
        if self.role not in get_args(Role):
            raise ValueError(f"role {self.role!r} is none of {', '.join(get_args(Role))}")
        if COLUMNS.keys() & self.extra.keys():
            raise ValueError(f"extra columns may not repeat {sorted(COLUMNS.keys() & self.extra.keys())}")

    def to_dict(self) -> dict[str, Any]:
        """Column → value in the order of `COLUMNS`, then the extra columns."""
        return {name: getattr(self, name) for name in COLUMNS} | dict(self.extra)

    def of_study(self, name: str) -> "Row":
        """The same row in the table of another study."""
        return replace(self, study=name)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Row":
        """The row of `to_dict`, or of a table; extra columns that are null do not belong to it."""
        known = {f.name for f in fields(cls)} & COLUMNS.keys()
        extra = {name: value for name, value in values.items() if name not in known and value is not None}
        return cls(**{name: values[name] for name in known if name in values}, extra=extra)


def table(rows: Iterable[Row], extra: Mapping[str, type[pl.DataType]] | None = None) -> pl.DataFrame:
    """The rows under the fixed types, then the declared extra columns; sorted by key in any case.

    A row with an undeclared extra column, and two rows with one key, are refused.
    """
    schema = COLUMNS | dict(extra or {})
    plain = [row.to_dict() for row in rows]
    undeclared = {name for row in plain for name in row} - schema.keys()
    if undeclared:
        raise ValueError(f"undeclared extra columns: {', '.join(sorted(undeclared))}")
    frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in plain], schema=schema)
    keys = [name for name in schema if name not in MEASURED]
    if frame.select(keys).is_duplicated().any():
        twice = frame.filter(frame.select(keys).is_duplicated()).row(0, named=True)
        raise ValueError(f"two rows have one key: { {name: twice[name] for name in keys} }")
    return frame.sort(keys, nulls_last=False)


def write_table(frame: pl.DataFrame) -> bytes:
    """The table as the bytes of a Parquet file."""
    _check_schema(frame)
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def read_table(content: bytes) -> pl.DataFrame:
    """The table in the bytes of a Parquet file; one without our columns is refused."""
    frame = pl.read_parquet(io.BytesIO(content))
    _check_schema(frame)
    return frame


def _check_schema(frame: pl.DataFrame) -> None:
    first = dict(list(frame.schema.items())[: len(COLUMNS)])
    if list(first.items()) != list(COLUMNS.items()):
        raise ValueError(f"not a study table: its columns are {first}")


def sites_in_order(frame: pl.DataFrame) -> list[str]:
    """The sites in the order of the computation: by block, then before, between and after its parts."""
    return sorted(frame["site"].drop_nulls().unique().to_list(), key=_place)


def _place(site: str) -> tuple[float, int, str]:
    number = re.search(r"\d{1,9}", site)
    outside = -1 if "embed" in site and "unembed" not in site else math.inf  # before or after all blocks
    stage = next((i for i, name in enumerate(_STAGES) if site.endswith(name)), len(_STAGES))
    return (int(number.group()) if number else outside, stage, site)
