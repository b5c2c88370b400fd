"""How well what one member says of its components fits another's, and what an assignment of heads has to do with it.

Heads have no names that members share: any order of the heads of a layer is the same model. A number that goes by
their names is therefore one draw of many, and one that takes the best assignment has looked for it. Each has its own
null: orders of the heads within their layers for the first, and for the second heads dealt out to the layers at random,
with the best assignment looked for again.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.components.naming import Component

MOST_ORDERS = 999
"""Orders are drawn where there are more than these."""
LEAST_ORDERS = 20
"""With fewer orders no p-value can be below 0.05, and none is given."""
REACHED = 1e-12
"""Equal up to rounding is reached."""


def pearson(x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """The correlation over the last axis; not a number where either side does not vary."""
    x, y = (v - v.mean(-1, keepdim=True) for v in (x.double(), y.double()))
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def spearman(x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Pearson's r of the ranks, ties at the middle of theirs."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: Tensor) -> Tensor:
    above = x[..., :, None] - x[..., None, :]
    return above.sign().double().sum(-1)


def concordance(x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """The share of pairs that stand in the same order on both sides, a tie counting half: 1/2 by chance."""
    n = x.shape[-1]
    first, second = torch.triu_indices(n, n, 1)
    signs = (x[..., first] - x[..., second]).sign() * (y[..., first] - y[..., second]).sign()
    return (signs.double().mean(-1) + 1) / 2


STATISTICS = {"pearson": pearson, "spearman": spearman, "concordance": concordance}


def leave_one_out(x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Pearson's r without each component in turn: how much of it rests on one of them."""
    n = x.shape[-1]
    rest = torch.stack([torch.tensor([j for j in range(n) if j != i]) for i in range(n)])
    return pearson(x[..., rest], y[..., rest])


@dataclass(frozen=True)
class Slots:
    """Which places hold heads of which layer; all other components are known by name."""

    layers: Mapping[int, Sequence[int]]
    n: int

    @classmethod
    def of(cls, components: Sequence[Component]) -> "Slots":
        places: dict[int, list[int]] = {}
        for place, component in enumerate(components):
            if component.kind == "head":
                places.setdefault(component.layer, []).append(place)
        return cls(places, len(components))

    @property
    def orders(self) -> int:
        """How many orders of heads within their layers there are."""
        return math.prod(math.factorial(len(places)) for places in self.layers.values())

    @property
    def deals(self) -> int:
        """How many ways there are to deal the heads out to the layers."""
        sizes = [len(places) for places in self.layers.values()]
        return math.factorial(sum(sizes)) // math.prod(math.factorial(size) for size in sizes)

    def within_layers(self, generator: torch.Generator) -> Int[Tensor, "orders n"]:
        """All orders of heads within their layers, the given one first; so many random ones if there are more."""
        if self.orders <= MOST_ORDERS:
            each = [torch.tensor(list(itertools.permutations(places))) for places in self.layers.values()]
            chosen = torch.cartesian_prod(*(torch.arange(len(some)) for some in each)).view(self.orders, -1)
            dealt = [some[chosen[:, layer]] for layer, some in enumerate(each)]
        else:
            dealt = [self._drawn(places, generator) for places in self.layers.values()]
        return self._orders([list(places) for places in self.layers.values()], dealt)

    def across_layers(self, generator: torch.Generator) -> Int[Tensor, "orders n"]:
        """The given order, then random ones of all heads over all layers."""
        heads = [place for places in self.layers.values() for place in places]
        return self._orders([heads], [self._drawn(heads, generator)])

    def best(self, x: Float[Tensor, "*batch n"], y: Float[Tensor, "n"]) -> Int[Tensor, "*batch n"]:
        """The order σ of heads within their layers for which Σ x[σ]·y, and with it Pearson's r, is largest.

        By the rearrangement inequality it is the one that puts both in the same order.
        """
        order = torch.arange(self.n).expand(x.shape).clone()
        for places in self.layers.values():
            at = torch.tensor(places)
            by_y = at[y[at].argsort(dim=-1, stable=True)]
            order[..., by_y] = at[x[..., at].argsort(dim=-1, stable=True)]
        return order

    def _orders(self, groups: Sequence[Sequence[int]], dealt: Sequence[Tensor]) -> Int[Tensor, "orders n"]:
        """Each group of places filled with what is dealt [orders places] to it."""
        orders = torch.arange(self.n).repeat(len(dealt[0]), 1)
        for places, chosen in zip(groups, dealt, strict=True):
            orders[:, torch.tensor(places)] = chosen
        return orders

    @staticmethod
    def _drawn(places: Sequence[int], generator: torch.Generator) -> Int[Tensor, "orders places"]:
        """The given order, then random ones."""
        drawn = torch.rand(MOST_ORDERS, len(places), generator=generator).argsort(-1)
        return torch.tensor(places)[torch.cat([torch.arange(len(places))[None], drawn])]


@dataclass(frozen=True)
class Tested:
    """A correlation under one assignment, beside the same under others of its null, the given one among them."""

    order: Int[Tensor, "n"]
    """Whose component of the source stands for each of the target."""
    value: float
    null: Float[Tensor, "orders"] | None
    """None where there are too few other assignments for a test."""

    @property
    def p_value(self) -> float | None:
        """The share of assignments that reach the value."""
        return None if self.null is None else float((self.null >= self.value - REACHED).double().mean())


def by_name(source: Tensor, target: Tensor, slots: Slots, generator: torch.Generator) -> Tested:
    """Heads with the same number; the null takes them in any order within their layers."""
    value = float(pearson(source, target))
    if slots.orders < LEAST_ORDERS:
        return Tested(torch.arange(slots.n), value, None)
    null = pearson(source[slots.within_layers(generator)], target)
    return Tested(torch.arange(slots.n), value, null)


def by_best(source: Tensor, target: Tensor, slots: Slots, generator: torch.Generator) -> Tested:
    """Heads matched within their layers so that r is largest; the null deals all heads out to the layers first."""
    order = slots.best(source, target)
    value = float(pearson(source[order], target))
    if slots.deals < LEAST_ORDERS:
        return Tested(order, value, None)
    dealt = source[slots.across_layers(generator)]
    null = pearson(dealt.gather(-1, slots.best(dealt, target)), target)
    return Tested(order, value, null)


ASSIGNMENTS = {"name": by_name, "best": by_best}
