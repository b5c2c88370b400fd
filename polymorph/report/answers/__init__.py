"""The answers of a report, one file a study: each reads tables and says in a few sentences what stands in them."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import polars as pl

from polymorph.report.answers import (
    angles,
    bars,
    checkpoint_transfer,
    components,
    cycles,
    dictionary_match,
    equivalence,
    firing,
    haar,
    isometry,
    ladder,
    layers,
    loss_by_position,
    massive_activations,
    pairing,
    sae_transfer,
    sample_efficiency,
    steering,
    stitching,
    support,
    trajectory,
    weights,
)
from polymorph.report.answers.answer import Answer
from polymorph.report.answers.tables import Tables, table_of

__all__ = ["ANSWERS", "Answer", "answer_of"]

Read = Callable[[Tables], Answer | None]
_FILES = (
    pairing,
    loss_by_position,
    equivalence,
    stitching,
    massive_activations,
    steering,
    isometry,
    ladder,
    support,
    haar,
    cycles,
    layers,
    trajectory,
    sample_efficiency,
    weights,
    angles,
    components,
    bars,
    dictionary_match,
    firing,
    sae_transfer,
    checkpoint_transfer,
)


def _read(study: str, answer: Callable[[pl.DataFrame, Tables], Answer], tables: Tables) -> Answer | None:
    return answer(table_of(tables, study), tables) if study in tables else None


ANSWERS: Mapping[str, Read] = MappingProxyType(
    {file.STUDY: partial(_read, file.STUDY, file.answer) for file in _FILES}
)
"""Every study by its name, in the order of the registry; None where the study was not made."""


def answer_of(study: str, tables: Mapping[str, pl.DataFrame]) -> Answer | None:
    """The answer to a study's question from its own table, and beside it those of other studies.

    Tables are whole, as studies made them: of `ladder` and `angles`, which may hold every step, the last steps of every
    pair are read. None where the study has no table, or no answer is known for it.
    """
    read = ANSWERS.get(study)
    return None if read is None else read(tables)
