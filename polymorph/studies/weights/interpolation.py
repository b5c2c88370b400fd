"""Linear mode connectivity: the loss of models whose weights lie between those of two members."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from polymorph.models.architecture import Weights
from polymorph.models.functions import Functions
from polymorph.saes.scores import by_block, with_and_without
from polymorph.tasks.task import IGNORED, Chunk

FRACTIONS = tuple(step / 10 for step in range(11))
"""Of the way from the source to the target."""


def chunks_of(functions: Functions, documents: int) -> list[Chunk]:
    """The first documents of the eval split, so many or all of it."""
    return list(functions.first(documents).inputs("eval"))


@dataclass(frozen=True)
class Path:
    """Losses [score fraction], in nats a token, summed over heads: of all documents, and without each block of them."""

    losses: Float[Tensor, "score fraction"]

    @cached_property
    def excess(self) -> Float[Tensor, "score fraction"]:
        """By how much the loss is above the straight line between both ends."""
        along = torch.tensor(FRACTIONS, dtype=self.losses.dtype)
        ends = self.losses[:, :1] * (1 - along) + self.losses[:, -1:] * along
        return self.losses - ends

    @property
    def barrier(self) -> Float[Tensor, "score"]:
        """The largest excess between the ends, over all documents (Frankle et al. 2020); without a block, that there.

        Below 0 where all of the way lies below the line.
        """
        return self.excess[:, 1 + int(self.excess[0, 1:-1].argmax())]


@dataclass(frozen=True)
class Between:
    """Computes paths, on some inputs: an end that was met before is not computed again."""

    functions: Functions
    chunks: Sequence[Chunk]
    blocks: int

    @property
    def tokens(self) -> int:
        return sum(len(chunk.document) for chunk in self.chunks)

    @property
    def documents(self) -> int:
        return 1 + max(int(chunk.document.max()) for chunk in self.chunks)

    def loss(self, weights: Weights) -> Float[Tensor, "score"]:
        """Of a model with these weights, in float32: of all documents, and without each block of them."""
        device = self.functions.device
        own = {name: value.to(device, torch.float32) for name, value in weights.items()}
        sums = torch.zeros(self.blocks, 2, dtype=torch.float64)
        for chunk in self.chunks:
            losses = _losses(self.functions.logits_of(own, chunk), chunk)
            sums += by_block(
                torch.stack([losses, torch.ones_like(losses)], -1), chunk.document, self.blocks
            ).cpu()
        scores = with_and_without(sums[sums[:, 1] > 0])
        return scores[:, 0] / scores[:, 1]

    def path(
        self, source: Weights, target: Weights, ends: tuple[Float[Tensor, "score"], Float[Tensor, "score"]]
    ) -> Path:
        """From source to target, whose own losses are known."""
        inside = [self.loss(mixed) for mixed in _mixtures(source, target)]
        return Path(torch.stack([ends[0], *inside, ends[1]], -1))


def _mixtures(source: Weights, target: Weights) -> Iterator[Mapping[str, Tensor]]:
    for fraction in FRACTIONS[1:-1]:
        yield {name: torch.lerp(source[name], own, fraction) for name, own in target.items()}


def _losses(logits: Mapping[str, Tensor], chunk: Chunk) -> Float[Tensor, "n"]:
    each = [
        F.cross_entropy(own, chunk.labels[head][chunk.kept], reduction="none", ignore_index=IGNORED)
        for head, own in logits.items()
    ]
    return torch.stack(each).sum(0)
