"""The page in sections: one a study, with its question, its answer, its figures and what stands in its table."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.plate import Drawn
from polymorph.report.data import ReportData
from polymorph.report.figures import AFTER, BEFORE
from polymorph.studies.answers import answer_of
from polymorph.studies.registry import STUDIES

LADDER = "ladder"
MEMBERS = "members"
"""The section of what is about members by themselves, and belongs to no study."""
OF_ANOTHER_NAME = {
    "training_curves": MEMBERS,
    "r2_by_site": LADDER,
    "r2_trajectory": LADDER,
    "frobenius_trajectory": LADDER,
    "eigenvalue_angles": "angles",
    "principal_components": "support",
    "sae_splicing": "sae_transfer",
}
"""Figures whose name is not that of their study."""


@dataclass(frozen=True)
class Section:
    """One study; `metrics` are those of its table, by name."""

    study: str
    question: str
    answer: Answer | None
    plates: tuple[Drawn, ...]
    metrics: tuple[str, ...]


def section_of(plate: Drawn) -> str:
    """The study that a figure belongs to; `MEMBERS` for one that belongs to none."""
    name = OF_ANOTHER_NAME.get(plate.name, plate.name)
    return name if name in STUDIES else MEMBERS


def in_page_order() -> list[str]:
    """Every study once: those before the ladder, the ladder and its angles, those after it, any other."""
    return list(
        dict.fromkeys(
            [*(name for name, _ in BEFORE), LADDER, "angles", *(name for name, _ in AFTER), *STUDIES]
        )
    )


def sections_of(report: ReportData, drawn: Sequence[Drawn]) -> list[Section]:
    """Those that were made or have a figure; the ladder always, because all others are read beside it."""
    tables = {**({} if report.ladder.is_empty() else {LADDER: report.ladder}), **report.tables}
    found = []
    for name in in_page_order():
        plates = tuple(plate for plate in drawn if section_of(plate) == name)
        if plates or name in tables or name == LADDER:
            metrics = _metrics(tables.get(name))
            question = STUDIES[name].question
            found.append(Section(name, question, answer_of(name, tables), plates, metrics))
    return found


def _metrics(table: pl.DataFrame | None) -> tuple[str, ...]:
    if table is None or "metric" not in table.columns:
        return ()
    return tuple(sorted(table["metric"].drop_nulls().unique().to_list()))
