"""Bounded-depth Dyck-3 with three labels at every position ("Polymorphism Is Rotation", section Dyck-3).

A sequence is BOS, content, EOS and PAD up to the context. Content is either a Dyck prefix or brackets drawn
uniformly. Everything is computed for all steps, members and sequences at once; a batch is a pure function of
(seed, stream, step), so two processes, two devices or two stacks see the same bits.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.packing import by_length, flatten, pack
from polymorph.tasks.philox import below, philox
from polymorph.tasks.task import IGNORED, SPLITS, Chunk, Inputs, Split

PAD, BOS, EOS = 0, 1, 2
FIRST_BRACKET = 3  # then ( ) [ ] { } as 3…8: openers are odd, closers even
FAMILIES = 3
OPEN_PROBABILITY = 0.55
PREFIX_PROBABILITY = 0.5
HEADS = ("tok", "depth", "valid")

Distribution = Literal["train", "compositional", "long"]
DISTRIBUTIONS: tuple[Distribution, ...] = ("train", "compositional", "long")

# A stream is the second word of the generator's key: draws for different purposes never meet.
STREAMS = {"train": 0, "evaluation": 1, "probe": 2, "sae": 3}

_WORDS_PER_SEQUENCE = 4  # counter block 0; positions take the blocks after it
_AT_ONCE = 256  # documents a chunk; controls are shuffled inside a chunk
_GROUPS = 16  # of equal length in a chunk
_EVALUATION_SEED = 0  # all members of all cohorts are evaluated on the same sequences


@dataclass(frozen=True)
class Batch:
    """Sequences with their labels; every field has shape [..., batch, context] but `lengths`, [..., batch].

    `tokens`, `depth` and `valid` are int64. `depth` is the height of the stack after the position, frozen
    once the sequence is invalid; `valid` is 0 until the first violation and 1 from then on (the paper's
    sign). `lengths` counts the tokens that are not PAD, BOS and EOS included.
    """

    tokens: Int[Tensor, "*batch context"]
    depth: Int[Tensor, "*batch context"]
    valid: Int[Tensor, "*batch context"]
    lengths: Int[Tensor, "*batch"]

    def labels(self) -> dict[str, Int[Tensor, "*batch context"]]:
        return {"tok": self.tokens, "depth": self.depth, "valid": self.valid}

    def mask(self) -> Bool[Tensor, "*batch context"]:
        return self.tokens != PAD

    def __getitem__(self, index: int | slice) -> "Batch":
        return Batch(self.tokens[index], self.depth[index], self.valid[index], self.lengths[index])


class Dyck:
    """The task as its generator and its labeller."""

    def __init__(self, config: DyckConfig | None = None) -> None:
        self.config = config if config is not None else DyckConfig()

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        return DISTRIBUTIONS

    @property
    def evaluated_at_once(self) -> int:
        return 512

    @property
    def headline(self) -> str:
        return "depth"

    @property
    def classes(self) -> dict[str, int]:
        """Heads of the model and how many classes each has, the unused tokens of the vocabulary aside."""
        return {"tok": FIRST_BRACKET + 2 * FAMILIES, "depth": self.config.max_depth + 1, "valid": 2}

    def batches(
        self,
        seeds: Int[Tensor, " members"],
        steps: Int[Tensor, " steps"],
        size: int,
        stream: str = "train",
        distribution: Distribution = "train",
    ) -> Batch:
        """The batches of several seeds at several steps: fields of shape [steps, members, size, context].

        They live on the device of `seeds`. The same (seed, step, stream, distribution) gives the same bits
        whatever else is asked for beside it, and its first k sequences do not depend on `size`.
        """
        draw = _Draws(self.config, seeds, steps, size, STREAMS[stream], DISTRIBUTIONS.index(distribution))
        if distribution == "compositional":
            return self.label(self._compositional(draw))
        return self.label(self._mixed(draw, *self._lengths(stream, distribution)))

    def check(self, probe: ProbeConfig, uses: Sequence[str], d_vocab: int) -> None:
        """It has no end; models that learn it state their vocabulary with it."""

    def inputs(self, batch: Batch, groups: int = 1, static: bool = False) -> Inputs:
        """The sequences packed into one row a member: see `polymorph.tasks.packing`."""
        return pack(batch, groups, static)

    def flat_inputs(self, batch: Batch) -> Inputs | None:
        """Sequences end to end; one batch in 160 of a member has more tokens than there is room for."""
        return flatten(batch, self.capacity(batch.lengths.shape[-1]))

    def capacity(self, sequences: int) -> int:
        """Tokens that so many training sequences hold in all but 0.6 % of cases: the mean and 2.5 standard deviations.

        More room costs every step, less makes more batches go the slower way. A multiple of 16.
        """
        low, high = self.config.min_length, self.config.max_length
        mean = sequences * ((low + high) / 2 + 2)
        deviation = (sequences * ((high - low + 1) ** 2 - 1) / 12) ** 0.5
        return math.ceil(min(mean + 2.5 * deviation, sequences * self.config.context) / 16) * 16

    def evaluation(self, distribution: str, step: int, size: int, device: torch.device) -> Batch:
        """Sequences of a stream of their own."""
        seed = torch.tensor([_EVALUATION_SEED], device=device)
        kind = cast(Distribution, distribution)
        return self.batches(seed, torch.tensor([step]), size, "evaluation", kind)[0]

    def held_out(self, distribution: str, sequences: int, device: torch.device) -> Iterator[Chunk]:
        for step, first in enumerate(range(0, sequences, _AT_ONCE)):
            size = min(_AT_ONCE, sequences - first)
            yield _chunk(self.evaluation(distribution, step, size, device), first)

    def probe(self, probe: ProbeConfig, split: Split, device: torch.device) -> Iterator[Chunk]:
        """A document is a sequence; both splits are of one stream that is theirs alone."""
        documents = getattr(probe, split)
        for first in range(0, documents, _AT_ONCE):
            step = torch.tensor([2 * (first // _AT_ONCE) + SPLITS.index(split)])
            size = min(_AT_ONCE, documents - first)
            yield _chunk(
                self.batches(torch.tensor([probe.seed], device=device), step, size, "probe")[0], first
            )

    def fresh(self, seed: int, step: int, tokens: int, device: torch.device) -> Chunk:
        """The first sequences of a step that together hold so many tokens."""
        seeds, steps = torch.tensor([seed], device=device), torch.tensor([step], device=device)
        size = 32
        while True:  # the first k sequences of a step do not depend on how many are asked for
            batch = self.batches(seeds, steps, size, "sae")[0]
            if int(batch.lengths.sum()) >= tokens:
                break
            size *= 2
        enough = int((batch.lengths[0].cumsum(0) < tokens).sum()) + 1
        return _chunk(self.batches(seeds, steps, enough, "sae")[0], 0)

    def label(self, tokens: Int[Tensor, "*batch context"]) -> Batch:
        """Labels for any sequences of this vocabulary."""
        bracket = tokens >= FIRST_BRACKET
        opens = bracket & (tokens % 2 == 1)
        closes = bracket & (tokens % 2 == 0)
        family = torch.div(tokens - FIRST_BRACKET, 2, rounding_mode="floor")
        change = opens.to(torch.int8) - closes.to(torch.int8)
        height = change.cumsum(-1, dtype=torch.int8)
        mismatch = closes & (family != _top_family(family, opens, closes))
        violation = (height < 0) | (height > self.config.max_depth) | mismatch
        valid = violation.cumsum(-1, dtype=torch.int8).clamp(max=1)
        # Dropping every bracket from the first violation on freezes the depth at its last value.
        depth = (change * (1 - valid)).cumsum(-1, dtype=torch.int8)
        lengths = (tokens != PAD).sum(-1)
        return Batch(tokens.long(), depth.long(), valid.long(), lengths)

    def _lengths(self, stream: str, distribution: Distribution) -> tuple[int, int]:
        """The least and the greatest length of the content."""
        config = self.config
        if distribution == "long":
            return config.long_min_length, config.long_max_length
        return config.min_length, config.eval_max_length if stream == "evaluation" else config.max_length

    def _mixed(self, draw: "_Draws", low: int, high: int) -> Int[Tensor, "*batch context"]:
        config = self.config
        length = low + below(draw.sequence[0], high - low + 1)
        is_prefix = draw.sequence[1] < int(PREFIX_PROBABILITY * 2**32)
        coin, word = draw.positions()
        prefix = _prefix(coin < int(OPEN_PROBABILITY * 2**32), below(word, FAMILIES), config.max_depth)
        noise = below(word, 2 * FAMILIES)
        return _frame(torch.where(is_prefix[..., None], prefix, noise), length, config.context)

    def _compositional(self, draw: "_Draws") -> Int[Tensor, "*batch context"]:
        """One nest of a single family in the middle of shallow mixed pairs that fill the context."""
        config = self.config
        content = config.context - 2
        depth = config.nest_min_depth + below(draw.sequence[0], config.max_depth - config.nest_min_depth + 1)
        nest_family = below(draw.sequence[1], FAMILIES)
        pairs = content // 2 - depth
        start = (2 * (pairs // 2))[..., None]
        at = torch.arange(content, device=depth.device)
        in_nest = (at >= start) & (at < start + 2 * depth[..., None])
        nest = 2 * nest_family[..., None] + (at >= start + depth[..., None]).long()
        _, word = draw.positions()
        # Both brackets of a shallow pair take the family of the pair's first position; `start` is even, so
        # pairs stand at even offsets on both sides of the nest.
        family = below(word, FAMILIES)[..., at - at % 2]
        return _frame(torch.where(in_nest, nest, 2 * family + at % 2), 2 * pairs + 2 * depth, config.context)


def _chunk(batch: Batch, first: int) -> Chunk:
    """The sequences of one member's batch, numbered from `first` on, packed for the model."""
    device, size = batch.tokens.device, batch.tokens.shape[-2]
    packed = pack(batch, _GROUPS)
    labels = {head: label[0] for head, label in packed.labels.items()}
    kept = labels["tok"] != IGNORED
    tokens, positions = (values[0] for values in packed.arguments)
    document = first + by_length(batch.lengths)[0]
    lengths = [length for count, length in packed.keywords["layout"] for _ in range(count)]
    rows = torch.repeat_interleave(torch.arange(size, device=device), torch.tensor(lengths, device=device))
    seen = positions[kept]
    return Chunk((tokens, positions), labels, kept, document[rows][kept[0]], seen, seen, packed.keywords)


class _Draws:
    """The words that one call consumes: four a sequence and two a position."""

    def __init__(
        self, config: DyckConfig, seeds: Tensor, steps: Tensor, size: int, stream: int, distribution: int
    ) -> None:
        device = seeds.device
        self._content = config.context - 2
        self._key = (seeds.long()[None, :, None], torch.tensor(stream + 16 * distribution, device=device))
        self._step = steps.to(device).long()[:, None, None]
        self._row = torch.arange(size, device=device)
        zero = torch.zeros((), dtype=torch.long, device=device)
        self.sequence = philox(self._key, (self._step, self._row, zero, zero))

    def positions(self) -> tuple[Tensor, Tensor]:
        """Two independent words for every position of the content, [steps, members, size, content] each."""
        blocks = 1 + torch.arange((self._content + 1) // 2, device=self._row.device)
        key = (self._key[0][..., None], self._key[1])
        zero = torch.zeros_like(self._key[1])
        words = philox(key, (self._step[..., None], self._row[:, None], blocks, zero))
        first = torch.stack((words[0], words[2]), -1).flatten(-2)[..., : self._content]
        second = torch.stack((words[1], words[3]), -1).flatten(-2)[..., : self._content]
        return first, second


def _prefix(wants_open: Tensor, family: Tensor, max_depth: int) -> Tensor:
    """Brackets 0…5 of Dyck prefixes; the walk on the depth goes position by position."""
    depth = torch.zeros(family.shape[:-1], dtype=torch.int8, device=family.device)
    opened = []
    for wish in _by_position(wants_open):
        opens = (wish | (depth == 0)) & (depth < max_depth)
        depth = depth + opens.to(torch.int8) * 2 - 1
        opened.append(opens)
    opens = torch.stack(opened, -1)
    return 2 * torch.where(opens, family, _top_family(family, opens, ~opens)) + (~opens).long()


def _top_family(family: Tensor, opens: Tensor, closes: Tensor) -> Int[Tensor, "*batch position"]:
    """Family on top of the stack before each position, right up to the first violation.

    The stack is one integer with two bits a bracket: 32 bits hold a depth of 16, and what overflows lies
    under a violation already. An empty stack reads as family 0; the caller refuses it by its height.
    """
    stack = torch.zeros(family.shape[:-1], dtype=torch.int32, device=family.device)
    tops = []
    columns = zip(
        _by_position(family.to(torch.int32)), _by_position(opens), _by_position(closes), strict=True
    )
    for kind, is_open, is_close in columns:
        tops.append(stack & 3)
        stack = torch.where(is_open, stack * 4 + kind, torch.where(is_close, stack >> 2, stack))
    return torch.stack(tops, -1).long()


def _by_position(values: Tensor) -> tuple[Tensor, ...]:
    """Contiguous columns, one a position."""
    return values.movedim(-1, 0).contiguous().unbind(0)


def _frame(brackets: Tensor, length: Tensor, context: int) -> Tensor:
    """BOS, the first `length` brackets, EOS, PAD."""
    at = torch.arange(1, context, device=brackets.device)
    padded = torch.nn.functional.pad(brackets + FIRST_BRACKET, (0, 1))
    end = length[..., None] + 1
    body = torch.where(at < end, padded, torch.where(at == end, EOS, PAD))
    return torch.nn.functional.pad(body, (1, 0), value=BOS)
