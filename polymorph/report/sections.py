"""The page in sections: one a study, with its question, its answer, its figures and what stands in its table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.plate import Drawn
from polymorph.report.data import LADDER, ReportData
from polymorph.studies.registry import STUDIES


@dataclass(frozen=True)
class Section:
    """One study; `metrics` are those of its table, by name."""

    study: str
    question: str
    answer: Answer | None
    plates: tuple[Drawn, ...]
    limits: Sequence[str]
    metrics: tuple[str, ...]


def sections_of(report: ReportData, drawn: Mapping[str, tuple[Drawn, ...]]) -> list[Section]:
    """Those that were made or have a figure; the ladder always, because all others are read beside it."""
    return [
        Section(
            name,
            study.question,
            study.answer(report.tables),
            drawn.get(name, ()),
            study.limits if name in report.tables else (),
            _metrics(report.tables.get(name)),
        )
        for name, study in STUDIES.items()
        if drawn.get(name) or name in report.tables or name == LADDER
    ]


def _metrics(table: pl.DataFrame | None) -> tuple[str, ...]:
    if table is None or "metric" not in table.columns:
        return ()
    return tuple(sorted(table["metric"].drop_nulls().unique().to_list()))
