"""Bar B: how far answers are from those of the algorithm, of members and of decoys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.evidence.function_scores import Answer, TokenMeans, answers, labels_of, parts
from polymorph.models.architecture import HookedModel
from polymorph.models.functions import Functions
from polymorph.studies.components.rows import (
    PAPER,
)
from polymorph.tasks.task import IGNORED, Chunk

WITHIN, ACROSS = "within", "across"


MEAN = "mean"
"""In the column `head`: the mean over heads, as in the paper."""


MIXTURE = "mixture"
"""In the column `distribution`: all of them together, the first with `FIRST_SHARE` of the samples, as in the paper."""


FIRST_SHARE = 0.6


SAMPLES: Mapping[str, int] = {"cpu": 10**5}


SAMPLES_ELSEWHERE = 10**7
"""Positions at which every head is asked, of every member; of a decoy, and of members of a task without an algorithm,
`SAMPLES_OF_DECOYS`."""


SAMPLES_OF_DECOYS = 10**4


SMOOTHING = 1e-6
"""What the paper takes from the algorithm's label and spreads over the other classes, to have a KL in that form."""


@runtime_checkable
class Algorithmic(Protocol):
    """A task whose labels are a function of the tokens: there is an algorithm that a member can be held against."""

    def label(self, tokens: Int[Tensor, "*batch context"]) -> Any: ...


@dataclass(frozen=True)
class Decoy:
    """A decoy of the member at a place, among the models that are run."""

    name: str
    member: int
    model: HookedModel


Compared = tuple[str, int, int, str | None, str | None]
"""Scope, source, target, decoy, convention."""


Key = tuple[tuple[Compared, str], str, str]
"""The same and the distribution; head; metric."""


@dataclass
class Answered:
    """Divergences of the answers of members and decoys, from labels and from one another, over the same tokens."""

    functions: Functions
    directed: Sequence[tuple[int, int]]
    decoys: Sequence[Decoy]
    blocks: int
    read: dict[tuple[bool, str], int] = field(default_factory=dict)
    _keys: dict[Key, None] = field(default_factory=dict)

    @property
    def keys(self) -> list[Key]:
        """Of `means`, in the order in which they were met."""
        return [] if self.means is None else list(self._keys)

    @property
    def algorithmic(self) -> bool:
        return isinstance(self.functions.task, Algorithmic)

    @property
    def samples(self) -> int:
        if not self.algorithmic:
            return SAMPLES_OF_DECOYS
        return SAMPLES.get(self.functions.device.type, SAMPLES_ELSEWHERE)

    def documents(self, decoy: str | None, distribution: str) -> int:
        """How many of a distribution were read by members, or by decoys."""
        names = self.functions.distributions if distribution == MIXTURE else [distribution]
        return sum(self.read.get((decoy is not None, name), 0) for name in names)

    @cached_property
    def means(self) -> TokenMeans:
        """Of all that is compared, from one pass over the inputs."""
        means, names = TokenMeans(self.blocks), self.functions.distributions
        for place, distribution in enumerate(names):
            rest = (1 - FIRST_SHARE) / max(1, len(names) - 1)
            share = 1.0 if len(names) == 1 else FIRST_SHARE if place == 0 else rest
            tokens = 0
            for chunk in self.functions.inputs(distribution, self.samples):
                with_decoys = tokens < share * SAMPLES_OF_DECOYS
                self.update(means, chunk, distribution, with_decoys)
                for which in (False, True)[: 1 + with_decoys]:
                    seen = int(chunk.document.max()) + 1
                    self.read[which, distribution] = max(seen, self.read.get((which, distribution), 0))
                tokens += int(chunk.kept.sum())
                if tokens >= share * self.samples:
                    break
        return means

    def update(self, means: TokenMeans, chunk: Chunk, distribution: str, with_decoys: bool) -> None:
        """Add a chunk; the answers of all members are there together, those of one decoy at a time."""
        logits = [self.functions.logits(member, chunk) for member in range(len(self.functions.models))]
        labels = labels_of(chunk)
        distributions = [MIXTURE] if len(self.functions.distributions) == 1 else [distribution, MIXTURE]
        for some in parts(logits[0]):
            each = [answers(own, some) for own in logits]
            there = {head: label[some] for head, label in labels.items()}
            document = chunk.document[some]

            def add(
                key: Compared,
                by_head: dict[str, Tensor],
                there: Mapping[str, Tensor] = there,
                document: Tensor = document,
            ) -> None:
                together = torch.stack([*by_head.values()]).mean(0)
                for head, values in {**by_head, MEAN: together}.items():
                    given = there.get(head, next(iter(there.values()))) != IGNORED
                    for name in distributions:
                        whole: Key = ((key, name), head, "label_kl" if key[0] == WITHIN else "kl")
                        self._keys[whole] = None
                        means.add(whole, values, document, given)

            for member, own in enumerate(each):
                self.label_divergence(add, (WITHIN, member, member, None), own, there)
            for source, target in self.directed:
                add((ACROSS, source, target, None, None), _kl(each[source], each[target]))
            for decoy in self.decoys if with_decoys else ():
                own = self.of_decoy(decoy, chunk, some)
                self.label_divergence(add, (WITHIN, decoy.member, decoy.member, decoy.name), own, there)
                add((ACROSS, decoy.member, decoy.member, decoy.name, None), _kl(each[decoy.member], own))

    def of_decoy(self, decoy: Decoy, chunk: Chunk, some: slice) -> dict[str, Answer]:
        return answers(replace(self.functions, models=[decoy.model]).logits(0, chunk), some)

    def label_divergence(
        self, add: Any, key: tuple[Any, ...], own: Mapping[str, Answer], there: Mapping[str, Tensor]
    ) -> None:
        """As it is, −log p of the label, and in the paper's form; only where the labels are an algorithm's."""
        if self.algorithmic:
            add((*key, None), {head: one.fit(there[head])["loss"] for head, one in own.items()})
            add((*key, PAPER), {head: smoothed_kl(one.log_p, there[head]) for head, one in own.items()})


def _kl(source: Mapping[str, Answer], target: Mapping[str, Answer]) -> dict[str, Tensor]:
    return {head: own.kl(target[head]) for head, own in source.items()}


def smoothed_kl(
    log_p: Float[Tensor, "n classes"], labels: Int[Tensor, "n"], smoothing: float = SMOOTHING
) -> Float[Tensor, "n"]:
    """KL(q ‖ p) with q = 1 − ε on the label and ε/(K − 1) on each of the other classes; ε = 1e-6 in the paper.

    For an answer that is right and sure it is above 0 and grows with how sure it is: of a class that is given e⁻ˣ
    it adds ε/(K − 1)·(x − log((K − 1)/ε)).
    """
    others = log_p.shape[-1] - 1
    each = smoothing / others
    own = log_p.gather(-1, labels.clamp(min=0)[:, None]).squeeze(-1)
    rest = log_p.sum(-1) - own
    entropy = (1 - smoothing) * torch.log1p(torch.tensor(-smoothing, dtype=log_p.dtype))
    entropy = entropy + smoothing * torch.log(torch.tensor(each, dtype=log_p.dtype))
    return entropy.to(log_p) - (1 - smoothing) * own - each * rest
