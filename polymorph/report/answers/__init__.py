"""The answer of every study in words, made from its rows."""

from collections.abc import Callable, Mapping

import polars as pl

from polymorph.report.answers.answer import Answer

ANSWERS: Mapping[str, Callable[[Mapping[str, pl.DataFrame]], Answer | None]] = {}
"""Study → what says its answer from the tables of all studies; None where they do not hold one."""


def answer_of(study: str, tables: Mapping[str, pl.DataFrame]) -> Answer | None:
    """The answer of a study; None where nothing says it in words."""
    answer = ANSWERS.get(study)
    return None if answer is None else answer(tables)
