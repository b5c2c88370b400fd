"""Statistics over documents: one-sided t tests of means, comparison with random directions, and bootstrap intervals."""

import math

import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

RESAMPLES = 1000
FEWEST = 8
"""Documents behind a test."""


def p_above(values: Float[Tensor, " documents"], bound: float = 0.0) -> float:
    """One-sided p-value of a mean that is not above the bound: Student's t over documents."""
    n, mean, spread = len(values), float(values.mean()), float(values.std()) if len(values) > 1 else math.nan
    if n < 2:
        raise ValueError(f"a test over documents needs at least two, got {n}")
    if spread == 0:
        return 0.0 if mean > bound else 1.0
    return float(student.sf((mean - bound) / (spread / math.sqrt(n)), n - 1))


def p_beyond(value: float, null: Float[Tensor, " draws"]) -> float:
    """One-sided p-value of a value that is one more draw from where `null` is from, taken for normal.

    z = (value − mean)/(s √(1 + 1/draws)) is then Student's t with draws − 1 degrees of freedom. Along a line, effects
    of directions uniform on a sphere have lighter tails than that, so the test errs to the safe side.
    """
    n, spread = len(null), float(null.std())
    if spread == 0:
        return 0.0 if value > float(null.mean()) else 1.0
    return float(student.sf((value - float(null.mean())) / (spread * math.sqrt(1 + 1 / n)), n - 1))


class Resamples:
    """Documents drawn with replacement, the same draws for everything that is read on them."""

    def __init__(self, documents: int, generator: torch.Generator, draws: int = RESAMPLES) -> None:
        drawn = torch.randint(documents, (draws, documents), generator=generator)
        self.weights = torch.zeros(draws, documents, dtype=torch.float64)
        self.weights.scatter_add_(1, drawn, torch.ones(draws, documents, dtype=torch.float64))

    def ratio(
        self, above: Float[Tensor, " documents"], below: Float[Tensor, " documents"]
    ) -> tuple[float, float, float]:
        """Σ above / Σ below over documents, and the 95 % percentile interval of it; not finite where Σ below is 0."""
        above, below = above.double().cpu(), below.double().cpu()
        drawn = (self.weights @ above) / (self.weights @ below)
        ends = drawn.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
        return float(above.sum() / below.sum()), float(ends[0]), float(ends[1])

    def surely_positive(self, values: Float[Tensor, " documents"]) -> bool:
        """Whether the sum over documents is above 0 in all but 2.5 % of the draws."""
        drawn = self.weights @ values.double().cpu()
        return bool(drawn.quantile(0.025) > 0)
