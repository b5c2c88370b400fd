"""One member without each of its components, and what gradients predict of that."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.pairings import chunk_generator
from polymorph.components.ablation import Ablations, Documents, ablations_of, documents_of, kinds_of
from polymorph.components.attribution import Attribution, attributions, cost
from polymorph.components.naming import Component
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Role, Row
from polymorph.saes.scores import bounded, by_block, with_and_without
from polymorph.studies.components import STUDY as COMPONENTS

STUDY = "components"


ABLATION, INTEGRATED, PATCHING = "ablation", "integrated_gradients", "attribution_patching"


LEAST_COMPONENTS = 3


TOKENS, LEAST_DOCUMENTS = 768, 8
"""Of the eval split: whole documents, and at least so many of them."""


CORRELATIONS = frozenset({"effect_correlation", "cumulative_correlation"})


SURE = 1 - 1e-12
"""No correlation is taken for nearer to 1 than rounding lets it be known."""


NULL_DRAWS = 2**28


AFFORDED: Mapping[str, float] = {"cpu": 1e13}


AFFORDED_ELSEWHERE = 4e15
"""Floating-point operations of one member and family: minutes. What takes more is not predicted, only measured."""


@dataclass(frozen=True)
class Measured:
    """One member without each of its components, and what gradients predict, a family (`kind`) at a time."""

    end: End
    ablations: Ablations
    blocks: int
    _found: dict[str, list[Attribution] | None] = field(default_factory=dict)

    @property
    def documents(self) -> Documents:
        return self.ablations.documents

    @cached_property
    def families(self) -> dict[str, list[Component]]:
        return kinds_of(self.ablations.parts.components)

    def attributions(self, kind: str) -> list[Attribution] | None:
        """Of the components of a family; None where they take too long on this device."""
        if kind not in self._found:
            some = self.families[kind]
            afforded = AFFORDED.get(self.ablations.functions.device.type, AFFORDED_ELSEWHERE)
            within = cost(self.ablations, some) <= afforded
            self._found[kind] = attributions(self.ablations, some) if within else None
        return self._found[kind]

    def predicts(self, kind: str) -> bool:
        """Whether there is a prediction to correlate: of three components at least."""
        return len(self.families.get(kind, ())) >= LEAST_COMPONENTS and self.attributions(kind) is not None

    def per_token(self, totals: Float[Tensor, "*batch documents"]) -> Float[Tensor, "*batch scores"]:
        """Nats a token, of all documents and then without each block of them."""
        place = torch.arange(len(self.documents.tokens))
        tokens = by_block(self.documents.tokens, place, self.blocks)
        held = tokens > 0
        sums = by_block(totals.movedim(-1, 0), place, self.blocks)[held]
        kept = with_and_without(tokens[held]).view(-1, *(1,) * (totals.ndim - 1))
        return (with_and_without(sums) / kept).movedim(0, -1)

    def effects(self, kind: str, attribution: str, paper: bool = False) -> Float[Tensor, "n scores"] | None:
        """Of all components of a family; None where they were not predicted."""
        if attribution == ABLATION:
            each = [self.ablations.effect([component]) for component in self.families[kind]]
        else:
            if (found := self.attributions(kind)) is None:
                return None
            name = "patching" if attribution == PATCHING else "paper" if paper else "integrated"
            each = [getattr(own, name) for own in found]
        return self.per_token(torch.stack(each))


def measured_members(evidence: Evidence) -> list[Measured]:
    """The members of a comparison on the same documents; computed once for all studies that read them."""
    return evidence.once(STUDY, lambda: list(_measured(evidence, evidence.ends, TOKENS)))


def _measured(evidence: Evidence, ends: Sequence[End], tokens: int) -> Iterator[Measured]:
    assert evidence.functions is not None
    functions = evidence.functions(ends)
    documents = documents_of(functions, tokens, LEAST_DOCUMENTS)
    for member, end in enumerate(ends):
        yield Measured(end, ablations_of(functions, member, documents), evidence.blocks)


def directed_pairs(evidence: Evidence) -> list[tuple[int, int]]:
    return [pair for first, second in evidence.index for pair in ((first, second), (second, first))]


def bounded_correlation(r: Float[Tensor, "scores"]) -> tuple[float, float | None, float | None]:
    """As `bounded`, the jackknife on Fisher's scale, artanh r: no interval of a correlation passes 1."""
    _, low, high = bounded(r.clamp(-SURE, SURE).atanh())
    return float(r[0]), None if low is None else math.tanh(low), None if high is None else math.tanh(high)


def score_row(evidence: Evidence, on: Measured, metric: str, scores: Tensor, **about: Any) -> Row:
    """With the interval over documents of the member that was run; what is None is left out of the key."""
    of = (
        bounded_correlation if metric in CORRELATIONS and about.get("statistic") != "concordance" else bounded
    )
    value, low, high = of(scores) if scores.ndim else (float(scores), None, None)
    extra = {name: about.pop(name) for name in COMPONENTS.columns if name in about}
    documents = {"n_documents": len(on.documents.tokens), "n_tokens": on.documents.n_tokens}
    bounds = {"low": low, "high": high}
    about = {**bounds, **documents, **about}
    known = {name: own for name, own in extra.items() if own is not None}
    return evidence.row(STUDY, None, "eval", metric, value, extra=known, **about)


def pair_labels(source: End, target: End) -> dict[str, Any]:
    """Of a pair; what a member says of itself is what can be reached at all."""
    role: Role = "ceiling" if source[0] == target[0] else "estimate"
    steps = {"source_step": source[1], "target_step": target[1], "n_seeds": len({source[0], target[0]})}
    return {"source": source[0], "target": target[0], "role": role, **steps}


def pair_generator(*ends: End) -> torch.Generator:
    """Of the ends alone, so that the same rows follow whatever else is computed with them."""
    return chunk_generator(NULL_DRAWS, *(number for end in ends for number in end))
