"""Sequences of unequal length laid out so that little of a batch is PAD: in groups of equal length, or end to end."""

from itertools import pairwise
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from polymorph.tasks.task import IGNORED, Inputs

Layout = tuple[tuple[int, int], ...]
"""How a flat row of tokens splits into sequences: `((rows, length), …)`, groups of equal length one after the other."""


class Sequences(Protocol):
    """A batch of sequences of unequal length, [member sequence context], with labels at every position."""

    @property
    def tokens(self) -> Int[Tensor, "member sequence context"]: ...

    @property
    def lengths(self) -> Int[Tensor, "member sequence"]: ...

    def labels(self) -> dict[str, Int[Tensor, "member sequence context"]]: ...

    def mask(self) -> Bool[Tensor, "member sequence context"]: ...


def pack(batch: Sequences, groups: int, static: bool = False) -> Inputs:
    """One flat row a member: arguments `tokens` and `positions`, which restart at 0 in every sequence, and `layout`.

    Each member's sequences are sorted by length, cut into `groups`, and a group is cropped to its longest. The
    layout is common to all members, so a group is as long as the longest of any member. No token is lost. A
    static layout leaves every sequence at the full context: shapes that never change, for a compiler.
    """
    order = by_length(batch.lengths)
    size = order.shape[-1]
    bounds = [round(size * g / groups) for g in range(groups + 1)]
    context = batch.tokens.shape[-1]
    longest = [context] * size if static else batch.lengths.gather(-1, order).amax(0).tolist()
    spans = [(a, b) for a, b in pairwise(bounds) if b > a]
    layout = tuple((b - a, longest[a]) for a, b in spans)
    positions = torch.cat([torch.arange(n, device=order.device).repeat(rows) for rows, n in layout])
    row = torch.cat([torch.arange(a, b).repeat_interleave(longest[a]) for a, b in spans]).to(order.device)
    source = order[:, row] * context + positions

    def take(values: Tensor) -> Tensor:
        return values.flatten(1).gather(-1, source)[:, None]

    kept = take(batch.mask())
    taken = {head: take(label).masked_fill_(~kept, IGNORED) for head, label in batch.labels().items()}
    return Inputs((take(batch.tokens), positions.expand_as(kept)), taken, {"layout": layout})


def flatten(batch: Sequences, capacity: int) -> Inputs | None:
    """One flat row of `capacity` tokens a member, for a compiler; None if a member has more tokens than that.

    Sequences lie end to end in the order of the batch, without PAD; what is left of the row is ignored. Arguments
    are `tokens` and `positions`, [member 1 capacity], and the `starts` of the sequences, [member sequences + 1].
    Nothing else of what a member gets depends on the others.
    """
    starts = torch.nn.functional.pad(batch.lengths.cumsum(-1), (1, 0))
    if int(starts[:, -1].max()) > capacity:
        return None
    mask = batch.mask()
    members, context = len(mask), mask.shape[-1]
    places = mask.new_zeros(members, capacity, dtype=torch.long)
    kept = torch.arange(capacity, device=mask.device) < starts[:, -1:]
    places[kept] = mask.flatten(1).nonzero()[:, 1]

    def take(values: Tensor, rest: int) -> Tensor:
        return values.flatten(1).gather(-1, places).masked_fill_(~kept, rest)[:, None]

    labels = {head: take(label, IGNORED) for head, label in batch.labels().items()}
    return Inputs((take(batch.tokens, 0), (places % context)[:, None], starts), labels)


def by_length(lengths: Int[Tensor, "member sequence"]) -> Int[Tensor, "member sequence"]:
    """The order of the sequences in a packed row: the longest first."""
    return lengths.argsort(dim=-1, descending=True, stable=True)
