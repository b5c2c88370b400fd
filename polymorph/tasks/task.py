"""What every task is to the rest: inputs with labels, made as functions of numbers, for training and for the probe.

A task is opened once and handed round. Which model reads it is decided elsewhere: a model is called with the
`arguments` and `keywords` that the task gives, and answers with logits by head.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from polymorph.tasks.config import ProbeConfig

Split = Literal["fit", "eval"]
SPLITS: tuple[Split, ...] = ("fit", "eval")
IGNORED = -100  # label of a position that no loss counts


@dataclass(frozen=True)
class Inputs:
    """What a stack of models is called with, the member axis first.

    `labels` maps a head to the classes that its logits [member row pos classes] should say, IGNORED where
    none is asked for. `keywords` are the same for all members.
    """

    arguments: tuple[Int[Tensor, "member row pos"], ...]
    labels: Mapping[str, Int[Tensor, "member row pos"]]
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def expand(self, members: int) -> "Inputs":
        """The one member's inputs, given to several."""

        def spread(values: Tensor) -> Tensor:
            return values.expand(members, *values.shape[1:])

        labels = {head: spread(label) for head, label in self.labels.items()}
        return Inputs(tuple(spread(values) for values in self.arguments), labels, self.keywords)


@dataclass(frozen=True)
class Chunk:
    """Some documents of a split for one model; `document`, `position` and `seen` belong to the tokens kept, row by row.

    `position` is a token's place in its document, `seen` how many tokens of it the model has read before that one:
    less, where a document is longer than the model's context.
    """

    arguments: tuple[Int[Tensor, "row pos"], ...]
    labels: Mapping[str, Int[Tensor, "row pos"]]
    kept: Bool[Tensor, "row pos"]
    document: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    seen: Int[Tensor, " n"]
    keywords: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A distribution of inputs with its labels.

    A batch is whatever `inputs` understands: several steps' batches are generated together, and `[i]` is
    that of one step. The same numbers give the same tokens, whatever else is asked for beside them.
    """

    @property
    def distributions(self) -> Sequence[str]:
        """On which members are evaluated while they train."""
        ...

    @property
    def evaluated_at_once(self) -> int:
        """Sequences a batch, so few that logits of a stack fit into memory."""
        ...

    @property
    def headline(self) -> str:
        """The head whose accuracy stands for a member where there is room for one number."""
        ...

    def check(self, probe: ProbeConfig, uses: Sequence[str], d_vocab: int) -> None:
        """`RequestError` if it has too little for the probe or for one of its uses, or says tokens of d_vocab and more.

        Uses are `train`, `evaluation` and `sae`.
        """
        ...

    def batches(self, seeds: Int[Tensor, " members"], steps: Int[Tensor, " steps"], size: int) -> Any:
        """The training batches of several members at several steps, indexed by step, on the device of `seeds`."""
        ...

    def inputs(self, batch: Any, groups: int = 1, static: bool = False) -> Inputs:
        """A batch laid out for the models, in `groups` of equal length where lengths differ.

        `static` asks for shapes that never change, for a compiler.
        """
        ...

    def flat_inputs(self, batch: Any) -> Inputs | None:
        """A batch whose shapes are those of every batch of its size, and with little PAD; None if it does not fit.

        Every argument has the member axis first, and what a member gets does not depend on the others.
        """
        ...

    def evaluation(self, distribution: str, step: int, size: int, device: torch.device) -> Any:
        """A batch [1 member] of a distribution that training does not meet."""
        ...

    def held_out(self, distribution: str, sequences: int, device: torch.device) -> Iterator[Chunk]:
        """The sequences of `evaluation`, a document each."""
        ...

    def probe(self, probe: ProbeConfig, split: Split, device: torch.device) -> Iterator[Chunk]:
        """The documents of one split of the probe, always the same ones in the same chunks, whole in one chunk."""
        ...

    def fresh(self, seed: int, step: int, tokens: int, device: torch.device) -> Chunk:
        """At least so many tokens that neither training, evaluation nor the probe has met; a function of `step`."""
        ...
