"""What is told of the numbers behind a claim, and whether they are the paper's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from scipy.stats import kstwo

from polymorph.alignment.haar import ks_from_uniform

Kind = Literal["value", "range", "list", "at_least", "at_most", "above", "below"]
Numbers = Sequence[float]


def ks_distance(angles: Numbers) -> float:
    """Largest distance of the empirical law of angles from the uniform one on (−π, π]."""
    return float(ks_from_uniform(torch.tensor(sorted(angles), dtype=torch.float64)))


def ks_p(angles: Numbers) -> float:
    """Kolmogorov's p-value of it, as if the angles were independent: the paper's, uncalibrated."""
    return float(kstwo.sf(ks_distance(angles), len(angles)))


def p10_p90(values: Numbers) -> list[float]:
    return [float(share) for share in np.quantile(np.asarray(values, dtype=float), [0.1, 0.9])]


WITHIN: Mapping[str, Callable[[Numbers], float]] = MappingProxyType(
    {
        "median": median,
        "mean": mean,
        "min": min,
        "max": max,
        "count": len,
        "ks_distance": ks_distance,
        "ks_p": ks_p,
    }
)
"""Of the values of a group, its number."""
SUMMARIES: Mapping[str, Callable[[Numbers], list[float]]] = MappingProxyType(
    {
        "median": lambda values: [median(values)],
        "mean": lambda values: [mean(values)],
        "min": lambda values: [min(values)],
        "max": lambda values: [max(values)],
        "range": lambda values: [min(values), max(values)],
        "p10_p90": p10_p90,
        "each": list,
        "count": lambda values: [float(len(values))],
    }
)
"""Of the numbers of all groups, what is told and compared."""


@dataclass(frozen=True)
class Expected:
    """The paper's number, and how near to it is the same.

    A `value` is met where every number told is within the tolerance of it; a `range` where they all lie in it,
    widened by the tolerance; a `list` element by element, and only where there are as many of ours (`comparable`).
    The others are bounds. A relative tolerance is a share of the paper's number.
    """

    kind: Kind
    numbers: tuple[float, ...]
    tolerance: float = 0.0
    relative: bool = False

    def __post_init__(self) -> None:
        if not self.numbers or not all(math.isfinite(number) for number in self.numbers):
            raise ValueError("the paper's number is missing, or not finite")
        if self.kind == "range" and (len(self.numbers) != 2 or self.numbers[0] > self.numbers[1]):
            raise ValueError(f"a range has a lower and an upper end, and not {self.numbers}")
        if self.kind not in ("range", "list") and len(self.numbers) != 1:
            raise ValueError(f"{self.kind}: one number, and not {self.numbers}")
        if self.tolerance < 0:
            raise ValueError(f"tolerance {self.tolerance}: from 0 on")

    def width(self, number: float) -> float:
        return self.tolerance * abs(number) if self.relative else self.tolerance

    def comparable(self, told: Numbers) -> bool:
        """Whether there are as many as the paper has, where it lists them; else at least one."""
        return len(told) == len(self.numbers) if self.kind == "list" else len(told) > 0

    def met(self, told: Numbers) -> bool:
        """Whether these numbers are the paper's; `ValueError` for those that are not comparable."""
        if not self.comparable(told):
            raise ValueError(f"{len(told)} numbers, and the paper has {len(self.numbers)}")
        if self.kind == "list":
            return all(self._inside(own, its, its) for own, its in zip(told, self.numbers, strict=True))
        low, high = min(self.numbers), max(self.numbers)
        bounds: Mapping[str, Callable[[float], bool]] = {
            "at_least": lambda own: own >= low - self.width(low),
            "at_most": lambda own: own <= high + self.width(high),
            "above": lambda own: own > low,
            "below": lambda own: own < high,
        }
        test = bounds.get(self.kind, lambda own: self._inside(own, low, high))
        return all(test(own) for own in told)

    def _inside(self, own: float, low: float, high: float) -> bool:
        return low - self.width(low) <= own <= high + self.width(high)
