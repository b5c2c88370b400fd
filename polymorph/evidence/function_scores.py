"""How well answers fit labels and one another: means over tokens, by blocks of documents.

An answer is a distribution over the classes of a head, the float64 softmax of its logits. Heads answer
independently, so of all heads together losses and divergences add up, and they are right, or the same, where every
one of them is. Tokens are taken some at a time: a vocabulary in float64 is large.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polymorph.alignment.jackknife import jackknife_interval
from polymorph.saes.scores import by_block, with_and_without
from polymorph.tasks.task import IGNORED, Chunk

SUM = "all"
"""In the column `head`: the sum over heads, where there are several."""
AT_ONCE = 2**22
"""float64 numbers of one member's answers in memory together: 32 MiB, and as much again for the probabilities."""
HELD = 2**28
"""float32 numbers of logits in memory together: a gigabyte."""
ADDED = frozenset({"loss", "kl", "kl_source", "kl_target"})
"""What adds up over heads; all else is a share, and of all heads the share of tokens that every head has."""

Logits = Mapping[str, Float[Tensor, "n classes"]]
Key = tuple[Hashable, str, str]
"""Who, the head, the metric."""
Values = dict[str, dict[str, Float[Tensor, "n"]]]
"""Head → metric → what it is on every token."""


@dataclass(frozen=True)
class Answer:
    """What one head of a member says on n tokens."""

    log_p: Float[Tensor, "n classes"]

    @cached_property
    def p(self) -> Float[Tensor, "n classes"]:
        return self.log_p.exp()

    @cached_property
    def top(self) -> Int[Tensor, "n"]:
        """The most probable class."""
        return self.log_p.argmax(-1)

    @cached_property
    def entropy(self) -> Float[Tensor, "n"]:
        return -torch.einsum("nc,nc->n", self.p, self.log_p)

    def fit(self, labels: Int[Tensor, "n"]) -> dict[str, Float[Tensor, "n"]]:
        """`loss` in nats and `accuracy` of every token; what a token without a label has there is not to be counted."""
        given = -self.log_p.gather(-1, labels.clamp(min=0)[:, None]).squeeze(-1)
        return {"loss": given, "accuracy": (self.top == labels).double()}

    def kl(self, other: "Answer") -> Float[Tensor, "n"]:
        """KL(p ‖ p of the other) in nats."""
        return torch.einsum("nc,nc->n", self.p, self.log_p - other.log_p)


def answers(logits: Logits, tokens: slice) -> dict[str, Answer]:
    """By head, on some of the tokens."""
    return {head: Answer(own[tokens].double().log_softmax(-1)) for head, own in logits.items()}


def parts(logits: Logits) -> list[slice]:
    """All tokens, so many at a time that their answers are `AT_ONCE` numbers."""
    n = len(next(iter(logits.values())))
    step = max(1, AT_ONCE // sum(own.shape[-1] for own in logits.values()))
    return [slice(first, min(first + step, n)) for first in range(0, n, step)]


def labels_of(chunk: Chunk) -> dict[str, Int[Tensor, "n"]]:
    """By head, of the tokens kept."""
    return {head: own[chunk.kept] for head, own in chunk.labels.items()}


def counted(labels: Mapping[str, Int[Tensor, "n"]]) -> dict[str, Bool[Tensor, "n"]]:
    """Which tokens have a label, by head and for all heads together."""
    each = {head: own != IGNORED for head, own in labels.items()}
    return each if len(each) == 1 else {**each, SUM: torch.stack([*each.values()]).all(0)}


def with_sum(by_head: Mapping[str, Mapping[str, Tensor]]) -> Values:
    """The values of every head, and, where there are several, of all heads together."""
    found = {head: dict(values) for head, values in by_head.items()}
    if len(found) > 1:
        together = {}
        for metric in next(iter(found.values())):
            each = torch.stack([values[metric] for values in found.values()])
            together[metric] = each.sum(0) if metric in ADDED else each.prod(0)
        found[SUM] = together
    return found


def summed(by_head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What adds up over heads, of every head, and, where there are several, of all heads together."""
    if len(by_head) == 1:
        return dict(by_head)
    return {**by_head, SUM: torch.stack([*by_head.values()]).sum(0)}


class _Sums:
    """Sums by block of documents; a key is who, the head, the metric."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._sums: dict[Key, Tensor] = {}

    @property
    def heads(self) -> list[str]:
        """In the order in which they were added."""
        return list(dict.fromkeys(head for _, head, _ in self._sums))

    def _added(self, key: Key, sums: Tensor) -> None:
        self._sums[key] = self._sums[key] + sums.cpu() if key in self._sums else sums.cpu()


class TokenMeans(_Sums):
    """Means over tokens of whatever a key stands for; memory does not depend on the number of tokens."""

    def add(
        self, key: Key, values: Float[Tensor, "n"], document: Int[Tensor, "n"], some: Bool[Tensor, "n"]
    ) -> None:
        """Add tokens, of which `some` count."""
        rows = torch.stack([torch.where(some, values.double(), 0.0), some.double()], -1)
        self._added(key, by_block(rows, document, self.blocks))

    def scores(self, key: Key) -> Float[Tensor, "scores"]:
        """The mean, then without each block that holds tokens of this key; `ValueError` without any."""
        sums = self._sums[key]
        if not self.tokens(key):
            raise ValueError(f"no token counts for the {key[2]} of the head {key[1]}")
        held = with_and_without(sums[sums[:, 1] > 0])
        return held[:, 0] / held[:, 1]

    def tokens(self, key: Key) -> int:
        """How many count."""
        return int(self._sums[key][:, 1].sum())


class ClassMeans(_Sums):
    """Mean distributions over classes, of tokens whose distributions or classes are given."""

    def add(self, key: Key, p: Float[Tensor, "n classes"], document: Int[Tensor, "n"]) -> None:
        """Add the distributions of some tokens."""
        self._added(key, by_block(p, document, self.blocks))

    def count(self, key: Key, classes: Int[Tensor, "n"], of: int, document: Int[Tensor, "n"]) -> None:
        """Add the classes of some tokens, out of so many classes."""
        place = (document.to(classes.device) % self.blocks) * of + classes
        self._added(key, torch.bincount(place, minlength=self.blocks * of).view(self.blocks, of).double())

    def scores(self, key: Key) -> Float[Tensor, "scores classes"]:
        """The mean distribution, then without each block that holds tokens."""
        sums = self._sums[key]
        held = with_and_without(sums[sums.sum(-1) > 0])
        return held / held.sum(-1, keepdim=True)


def bounded_each(
    scores: Sequence[Float[Tensor, "scores"]],
) -> list[tuple[float, float | None, float | None]]:
    """As `bounded`, of several on the same blocks at once."""
    every = torch.stack([*scores], -1)
    if len(every) < 3:
        return [(value, None, None) for value in every[0].tolist()]
    low, high = jackknife_interval(every[0], every[1:])
    return list(zip(every[0].tolist(), low.tolist(), high.tolist(), strict=True))


def entropy(p: Float[Tensor, "*scores classes"]) -> Float[Tensor, "*scores"]:
    """Of distributions, in nats."""
    return -torch.xlogy(p, p).sum(-1)
