"""Anybody's activations as a source of an analysis: tensors in, tables and claims out.

>>> import torch
>>> from polymorph import compare
>>> generator = torch.Generator().manual_seed(0)
>>> x = torch.randn(4000, 16, generator=generator, dtype=torch.float64)
>>> turn = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64)).Q
>>> turn[:, 0] *= torch.linalg.det(turn)  # a rotation, where QR gives a reflection as often
>>> found = compare([x, x @ turn], document=torch.arange(4000) // 20)
>>> found.verdict
'rotation'
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import End, PairLabel, pairs_of
from polymorph.models.activations import SPLITS, Activations, Split
from polymorph.pipeline.analysis import Analysis
from polymorph.pipeline.source import Facts, InMemory, Reasons
from polymorph.report.data import MemberSummary
from polymorph.studies.registry import STUDIES
from polymorph.studies.study import Kind, Study
from polymorph.verdicts.claim import Claim

OF_GIVEN = tuple(name for name, study in STUDIES.items() if study.is_of("given"))
SITE = "given"


@dataclass(frozen=True)
class GivenActivations:
    """Activations that are there already, [members n d] at one site; even documents fit, odd ones score."""

    values: Float[Tensor, "members n d"]
    document: Int[Tensor, "n"]
    position: Int[Tensor, "n"]
    sites: Sequence[str] = (SITE,)

    @property
    def documents(self) -> Mapping[Split, int]:
        return {split: len(self.document[self._tokens(split)].unique()) for split in SPLITS}

    def chunks(self, split: Split) -> Iterator[Activations]:
        tokens = self._tokens(split)
        document = self.document[tokens].div(2, rounding_mode="floor")
        yield Activations({self.sites[0]: self.values[:, tokens]}, document, self.position[tokens])

    def _tokens(self, split: Split) -> Tensor:
        return torch.nonzero(self.document % 2 == SPLITS.index(split)).squeeze(1)


@dataclass
class GivenMembers(InMemory):
    """Members of which there are activations alone; nothing of them is kept."""

    activations: GivenActivations
    name: str = SITE
    left_out: Reasons = field(default_factory=list)
    folder: Path = Path()
    kind: Kind = "given"
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @property
    def d(self) -> int:
        return self.activations.values.shape[-1]

    @property
    def ends(self) -> list[End]:
        return [(member, 0) for member in range(len(self.activations.values))]

    @property
    def pairs(self) -> list[PairLabel]:
        return pairs_of(self.ends)

    def identity(self, study: Study) -> Mapping[str, Any]:
        return {}

    def evidence(self) -> Evidence:
        return Evidence(self.name, self.ends, self.pairs, self.activations)

    def facts(self) -> Facts:
        return Facts({}, {}, [MemberSummary(seed, SITE, None) for seed, _ in self.ends])


@dataclass(frozen=True)
class Compared:
    """What `compare` found. `refused` names studies that the data cannot bear, with the reason."""

    claims: Sequence[Claim]
    tables: Mapping[str, pl.DataFrame]
    refused: Sequence[tuple[str, str]]

    @property
    def verdict(self) -> str:
        """The family of maps that relates the members; see `polymorph.verdicts.rule`."""
        return self.claims[0].verdict

    @property
    def statement(self) -> str:
        """The verdict as a sentence, with the numbers that decide it."""
        return self.claims[0].statement


def compare(
    members: Sequence[Float[Tensor, "n d"]],
    document: Int[Tensor, "n"],
    position: Int[Tensor, "n"] | None = None,
    studies: Sequence[str] = OF_GIVEN,
) -> Compared:
    """Compare activations of two or more members on the same n tokens; `document` says which belong together.

    Even documents fit and odd ones score. Without `position`, tokens are counted within their document.
    `ValueError` for members of different shapes, values that are not finite, fewer than four documents, or
    where the ladder of maps itself cannot be fitted (too few tokens, no variance).
    """
    shapes = {tuple(member.shape) for member in members}
    if len(members) < 2 or len(shapes) != 1 or members[0].ndim != 2:
        raise ValueError(f"members are two or more tensors of one shape [n, d], got {sorted(shapes)}")
    values = torch.stack(list(members))
    if not bool(torch.isfinite(values).all()):
        raise ValueError("the activations have values that are not finite")
    if document.shape != values.shape[1:2]:
        raise ValueError(f"document has the shape {tuple(document.shape)}, for {values.shape[1]} tokens")
    names, index = document.unique(return_inverse=True)
    if len(names) < 4:
        raise ValueError(f"two splits with an interval each need at least four documents, got {len(names)}")
    order = torch.argsort(index, stable=True)
    place = _positions(index[order]) if position is None else position[order]
    source = GivenMembers(GivenActivations(values[:, order], index[order], place))
    found = Analysis(source, [name for name in OF_GIVEN if name in studies]).run()
    if "ladder" in studies and "ladder" not in found.tables:
        raise ValueError(dict(found.left_out)["study ladder"])
    return Compared(found.claims, found.tables, found.left_out)


def _positions(document: Tensor) -> Tensor:
    """0, 1, 2, … within each document of sorted documents."""
    starts = torch.cat([document.new_ones(1, dtype=torch.bool), document[1:] != document[:-1]])
    first = torch.nonzero(starts).squeeze(1)
    return torch.arange(len(document)) - first[starts.long().cumsum(0) - 1]
