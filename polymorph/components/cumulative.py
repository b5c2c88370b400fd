"""How much is lost with the k most important components, by whosever ranking: what bar Pr is about.

The single effects of bar C say nothing of how components stand in for one another. Here they are ablated together,
A(k) being the effect without the first k of a ranking, and

- `correlation` is Pearson's r over k between A(k) and the sum of what was predicted for each of the k alone: both rise
  whatever the ranking, so that it is read against random rankings of the same components;
- `gain` is (a − a_random)/(a_own − a_random), with a the mean of A(k) over k < n: 0 for a random ranking and 1 for the
  target's own single effects, which need not be the best there is;
- `distance` is the mean of |A(k) − A_own(k)| over k < n, in shares of A(n), which is the same for every ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.components.agreement import Slots, pearson

MOST_SIZES = 12
"""How many k there are at most: all of them up to so many components, else evenly spaced."""
LEAST_GAIN = 1e-3
"""Of A(n): where the target's own ranking gains less over random ones, nothing is said of what another gains."""


def sizes_of(n: int) -> list[int]:
    """The k at which curves are known, n the last."""
    if n <= MOST_SIZES:
        return list(range(1, n + 1))
    return torch.linspace(1, n, MOST_SIZES).round().int().tolist()


def ranking(effects: Float[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Components from the largest effect to the smallest."""
    return effects.argsort(descending=True, stable=True)


def random_rankings(n: int, count: int, generator: torch.Generator) -> list[Int[Tensor, "n"]]:
    """Rankings that know nothing."""
    return [torch.randperm(n, generator=generator) for _ in range(count)]


def assigned(order: Int[Tensor, "n"], slots: Slots, effects: Float[Tensor, "n"]) -> Int[Tensor, "n"]:
    """The ranking with the heads of each layer put into the order of their effects: what the best assignment makes."""
    importance = torch.empty(len(order), dtype=torch.float64)
    importance[order] = -torch.arange(len(order), dtype=torch.float64)
    return ranking(importance[slots.best(importance, effects)])


@dataclass(frozen=True)
class Curves:
    """What rankings come to on one target; every A(k) is [sizes scores]."""

    random: Float[Tensor, "orders sizes scores"]
    own: Float[Tensor, "sizes scores"]

    def gain(self, curve: Float[Tensor, "*orders sizes scores"]) -> Float[Tensor, "*orders scores"] | None:
        """None where the target's own ranking is hardly better than random ones."""
        base = _area(self.random).mean(0)
        whole = _area(self.own) - base
        if float(whole[0]) <= LEAST_GAIN * abs(float(self.own[-1, 0])):
            return None
        return (_area(curve) - base) / whole

    def distance(self, curve: Float[Tensor, "sizes scores"]) -> Float[Tensor, "scores"]:
        return (curve - self.own)[:-1].abs().mean(0) / self.own[-1].abs()


def _area(curve: Tensor) -> Tensor:
    return curve[..., :-1, :].mean(-2)


def correlation(
    predicted: Float[Tensor, "sizes scores"], curve: Float[Tensor, "*orders sizes scores"]
) -> Float[Tensor, "*orders scores"]:
    """Over the sizes."""
    return pearson(predicted.mT.expand(curve.mT.shape), curve.mT)


def sums(effects: Float[Tensor, "n scores"], order: Int[Tensor, "n"], sizes: Sequence[int]) -> Tensor:
    """What single effects add up to [sizes scores], the first k of a ranking together."""
    return effects[order].cumsum(0)[torch.tensor(sizes) - 1]
