"""What adding a vector to the residual stream does to a member's answers, document by document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from polymorph.models.functions import Functions
from polymorph.steering.contrasts import Condition, LabelContrast, Target
from polymorph.steering.documents import FEWEST
from polymorph.steering.vectors import fulfils
from polymorph.tasks.task import Chunk

MOST_DOCUMENTS, MOST_TOKENS = 96, 3328
"""Eval documents on which named contrasts are measured, and the tokens that they hold at most."""
TOKENS_AT_ONCE = 4096
"""Tokens of copies of a chunk that are steered together."""

CLOSE = 1.1
"""Ratio of norms up to which the larger stands for both; it has the wider null."""

Clean = Mapping[str, Float[Tensor, "n classes"]]


@dataclass(frozen=True)
class Aim:
    """What a contrast is meant to change, and where.

    The effect is read at the positions that either condition names, and everywhere where there are none; the paper's
    at those that are to be changed: of the negative condition, or of the positive one where `sign` is −1.
    """

    name: str
    target: Target
    sign: int = 1
    conditions: tuple[Condition, Condition] | None = None

    @classmethod
    def of(cls, contrast: LabelContrast) -> "Aim":
        return cls(contrast.name, contrast.target, contrast.sign, (contrast.positive, contrast.negative))

    def concerned(self, chunk: Chunk) -> Bool[Tensor, " n"]:
        """Where the effect is read."""
        if self.conditions is None:
            return torch.ones_like(chunk.seen, dtype=torch.bool)
        positive, negative = self.conditions
        return fulfils(chunk, positive) | fulfils(chunk, negative)

    def changed(self, chunk: Chunk) -> Bool[Tensor, " n"]:
        """Where the paper counts right answers."""
        if self.conditions is None:
            return torch.ones_like(chunk.seen, dtype=torch.bool)
        return fulfils(chunk, self.conditions[1 if self.sign > 0 else 0])

    def log_odds(self, logits: Float[Tensor, "*rows classes"]) -> Float[Tensor, "*rows"]:
        """Of the positive against the negative classes of the target's head, with the sign of the contrast."""
        sides = (
            logits[..., list(side)].logsumexp(-1) for side in (self.target.positive, self.target.negative)
        )
        return self.sign * (next(sides) - next(sides))


@dataclass(frozen=True)
class Measured:
    """Effects of k vectors, summed over the tokens of each document; float64.

    `tau` sums changes of log-odds over `concerned` tokens, `lost` right answers over `changed` ones. `kl` of the
    steered from the unsteered output is summed over heads and `tokens`; `off` is what of it is not on target.
    """

    tau: Float[Tensor, "k aims documents"]
    concerned: Float[Tensor, "aims documents"]
    kl: Float[Tensor, "k documents"]
    tokens: Float[Tensor, " documents"]
    off: Float[Tensor, "k aims documents"]
    lost: Float[Tensor, "k aims documents"]
    changed: Float[Tensor, "aims documents"]

    def __add__(self, other: "Measured") -> "Measured":
        return Measured(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class _Read:
    """A chunk with what an unsteered member says of it."""

    chunk: Chunk
    clean: Clean
    right: Mapping[str, Bool[Tensor, " n"]]
    start: Tensor | None
    """The stream at the site that is steered, where the model can go on from it."""
    aims: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def of(self, aim: Aim) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"], Bool[Tensor, " n"]]:
        """The log-odds of an aim, and where it is concerned and changed; found once for each name."""
        if aim.name not in self.aims:
            odds = aim.log_odds(self.clean[aim.target.head])
            self.aims[aim.name] = odds, aim.concerned(self.chunk), aim.changed(self.chunk)
        return self.aims[aim.name]


class Meter:
    """One member at one site on the eval documents of `functions`, steered by adding vectors at every token."""

    def __init__(self, functions: Functions, member: int, site: str) -> None:
        self.functions, self.member, self.site = functions, member, site
        self.documents = functions.probe.eval
        self._read = [self._unsteered(chunk) for chunk in functions.inputs("eval")]

    def measure(
        self, vectors: Float[Tensor, "k d"], aims: Sequence[Aim], *, on_target_only: bool = False
    ) -> Measured:
        """Every vector on every aim; `off` and `lost` are 0 where only effects on target are asked for.

        `ValueError` for a vector that is not finite. Aims are told apart by their names.
        """
        if not bool(torch.isfinite(vectors).all()):
            raise ValueError("a steering vector is not finite")
        total: Measured | None = None
        for read in self._read:
            at_once = max(1, TOKENS_AT_ONCE // len(read.chunk.document))
            parts = [self._steered(read, some, aims, on_target_only) for some in vectors.split(at_once)]
            found = Measured(
                *(
                    torch.cat([getattr(part, name) for part in parts])
                    if name in ("tau", "kl", "off", "lost")
                    else getattr(parts[0], name)
                    for name in Measured.__dataclass_fields__
                )
            )
            total = found if total is None else total + found
        assert total is not None
        return total

    def documents_of(self, aim: Aim) -> Float[Tensor, " documents"]:
        """How many positions of every document an aim concerns."""
        return torch.stack([self._sums(read.chunk, read.of(aim)[1]) for read in self._read]).sum(0)

    def _unsteered(self, chunk: Chunk) -> _Read:
        clean = {
            head: logits.log_softmax(-1) for head, logits in self.functions.logits(self.member, chunk).items()
        }
        right = {head: own.argmax(-1) == chunk.labels[head][chunk.kept] for head, own in clean.items()}
        return _Read(chunk, clean, right, self.functions.stream(self.member, chunk, self.site))

    def _steered(
        self, read: _Read, vectors: Float[Tensor, "k d"], aims: Sequence[Aim], on_target_only: bool
    ) -> Measured:
        chunk = read.chunk
        by_head = self._logits(read, vectors)
        kl = {head: _divergence(read.clean[head], own) for head, own in by_head.items()}
        whole = torch.stack(list(kl.values())).sum(0)
        none, each = torch.zeros_like(whole), []
        for aim in aims:
            head = aim.target.head
            odds, concerned, changed = read.of(aim)
            tau, off, lost = (aim.log_odds(by_head[head]) - odds) * concerned, none, none
            if not on_target_only:
                off = (
                    whole - kl[head]
                    if len(kl) > 1
                    else _elsewhere(read.clean[head], by_head[head], aim.target)
                )
                right = by_head[head].argmax(-1) == chunk.labels[head][chunk.kept]
                lost = (read.right[head].double() - right.double()) * changed
            each.append((tau, concerned, off, lost, changed))
        tau, concerned, off, lost, changed = (
            self._sums(chunk, torch.stack(values, -2)) for values in zip(*each, strict=True)
        )
        ones = torch.ones_like(chunk.seen)
        return Measured(tau, concerned, self._sums(chunk, whole), self._sums(chunk, ones), off, lost, changed)

    def _logits(self, read: _Read, vectors: Float[Tensor, "k d"]) -> dict[str, Float[Tensor, "k n classes"]]:
        """Log-probabilities of as many copies of the chunk as there are vectors."""
        k, n = len(vectors), len(read.chunk.document)
        start = None if read.start is None else read.start.repeat(k, 1, 1)

        def add(x: Tensor) -> Tensor:
            return (x.view(k, n, -1) + vectors.to(x)[:, None]).flatten(0, 1)

        steered = self.functions.logits(self.member, copies(read.chunk, k), self.site, add, start)
        return {head: own.view(k, n, -1).log_softmax(-1) for head, own in steered.items()}

    def _sums(self, chunk: Chunk, values: Tensor) -> Float[Tensor, "*rest documents"]:
        sums = torch.zeros(*values.shape[:-1], self.documents, dtype=torch.float64, device=values.device)
        return sums.index_add_(-1, chunk.document.to(values.device), values.double())


def copies(chunk: Chunk, k: int) -> Chunk:
    """The chunk k times along its rows, each copy's tokens together; `document` counts on from copy to copy."""

    def again(values: Tensor) -> Tensor:
        return values.repeat(k, *(1 for _ in values.shape[1:]))

    documents = int(chunk.document.max()) + 1
    document = chunk.document.repeat(k) + documents * torch.arange(
        k, device=chunk.document.device
    ).repeat_interleave(len(chunk.document))
    return replace(
        chunk,
        arguments=tuple(again(values) for values in chunk.arguments),
        labels={head: again(labels) for head, labels in chunk.labels.items()},
        kept=again(chunk.kept),
        document=document,
        position=again(chunk.position),
        seen=again(chunk.seen),
    )


def _divergence(
    before: Float[Tensor, "n classes"], after: Float[Tensor, "k n classes"]
) -> Float[Tensor, "k n"]:
    """KL(before ‖ after) in nats, of log-probabilities."""
    return (before.exp() * (before - after)).sum(-1)


def _elsewhere(
    before: Float[Tensor, "n classes"], after: Float[Tensor, "k n classes"], target: Target
) -> Float[Tensor, "k n"]:
    """The same among the classes that are not the target's, renormalised; 0 where there are none."""
    rest = torch.ones(before.shape[-1], dtype=torch.bool, device=before.device)
    rest[[*target.positive, *target.negative]] = False
    if not bool(rest.any()):
        return torch.zeros(after.shape[:-1], dtype=after.dtype, device=after.device)
    return _divergence(before[:, rest].log_softmax(-1), after[..., rest].log_softmax(-1))


def random_directions(k: int, d: int, generator: torch.Generator) -> Float[Tensor, "k d"]:
    """Uniform on the unit sphere; float64."""
    drawn = torch.randn(k, d, generator=generator, dtype=torch.float64)
    return drawn / drawn.norm(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Null:
    """Effects on target of random directions at one to three norms, rising, for one aim."""

    norms: tuple[float, ...]
    tau: Float[Tensor, "norms directions"]

    def at(self, norm: float) -> Float[Tensor, " directions"]:
        """Of the same directions at another norm.

        Along a direction the effect is the parabola through no effect at norm 0 and the two norms between which it
        lies, or which are nearest; with one norm it is what was measured there.
        """
        if len(self.norms) == 1:
            return self.tau[0]
        first = min(sum(norm > own for own in self.norms[1:-1]), len(self.norms) - 2)
        s, t = self.norms[first : first + 2]
        slope_s, slope_t = self.tau[first] / s, self.tau[first + 1] / t
        return norm * (slope_s + (slope_t - slope_s) * (norm - s) / (t - s))


def null_norms(own: float, others: Sequence[float]) -> tuple[float, ...]:
    """Where random directions are measured: at the own norm, and at the least and the largest if they are not close."""
    moving = [norm for norm in (own, *others) if norm > 0]
    least, largest = min(moving, default=own), max(moving, default=own)
    small = [least] if CLOSE * least < own else []
    return (*small, largest) if largest <= CLOSE * own else (*small, own, largest)


def first_documents(functions: Functions, documents: int, tokens: int) -> Functions:
    """The same with as few of its first eval documents as hold so many tokens, at most `documents`.

    At least `FEWEST` of those that there are, however long: a test needs them.
    """
    return functions.first(documents, tokens, FEWEST)


def documents_concerned(functions: Functions, aim: Aim) -> int:
    """Eval documents that have a position that an aim concerns."""
    return sum(len(chunk.document[aim.concerned(chunk)].unique()) for chunk in functions.inputs("eval"))
