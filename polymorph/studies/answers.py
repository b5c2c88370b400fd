"""The answers of a report, one file a study: each reads tables and says in a few sentences what stands in them."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.studies.angles import answer as angles
from polymorph.studies.bars import answer as bars
from polymorph.studies.checkpoint_transfer import answer as checkpoint_transfer
from polymorph.studies.components import answer as components
from polymorph.studies.cycles import answer as cycles
from polymorph.studies.dictionary_match import answer as dictionary_match
from polymorph.studies.equivalence import answer as equivalence
from polymorph.studies.firing import answer as firing
from polymorph.studies.haar import answer as haar
from polymorph.studies.isometry import answer as isometry
from polymorph.studies.ladder import answer as ladder
from polymorph.studies.layers import answer as layers
from polymorph.studies.loss_by_position import answer as loss_by_position
from polymorph.studies.massive_activations import answer as massive_activations
from polymorph.studies.pairing import answer as pairing
from polymorph.studies.sae_transfer import answer as sae_transfer
from polymorph.studies.sample_efficiency import answer as sample_efficiency
from polymorph.studies.steering import answer as steering
from polymorph.studies.stitching import answer as stitching
from polymorph.studies.support import answer as support
from polymorph.studies.tables import Tables, table_of
from polymorph.studies.trajectory import answer as trajectory
from polymorph.studies.weights import answer as weights

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
