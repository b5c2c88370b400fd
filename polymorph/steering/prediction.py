"""Can the geometry of a direction foretell whether it carries over? Predictors, and regressions on them."""

import math

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

PINNED_ABOVE = 0.9
"""Eigenvalue of the symmetric part of R, a cosine, above which a direction counts as pinned."""
PRIOR = 2.5
"""Standard deviation of the slope's Gaussian prior, for a predictor of standard deviation 1: without it the slope is
infinite where a predictor tells all cases apart (Gelman et al. 2008, who take a Cauchy law of this scale)."""
RESAMPLES = 400
_STEPS = 50  # of Newton's method, which has converged after ten


def pinned_share(R: Float[Tensor, "d d"], v: Float[Tensor, "d"]) -> float:
    """‖Pv‖²/‖v‖², P onto the eigenvectors of (R + Rᵀ)/2 with eigenvalues above 0.9: what R leaves where it is."""
    values, vectors = torch.linalg.eigh((R + R.mT) / 2)
    kept = v @ vectors[:, values > PINNED_ABOVE]
    return float(kept.square().sum() / v.square().sum().clamp(min=torch.finfo(v.dtype).tiny))


def cosine(v: Float[Tensor, "d"], w: Float[Tensor, "d"]) -> float:
    """Of the angle between two vectors."""
    return float(torch.cosine_similarity(v, w, dim=0))


def spearman(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> float:
    """Rank correlation; not a number where either is constant."""
    a, b = (ranks - ranks.mean() for ranks in (rankdata(x.numpy()), rankdata(y.numpy())))
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan


def logistic_slope(
    x: Float[Tensor, "n"], works: Bool[Tensor, "n"], weights: Float[Tensor, "draws n"]
) -> Float[Tensor, "draws"]:
    """Slope of the log-odds that a case works, per standard deviation of x, for each row of weights.

    Penalised maximum likelihood with `PRIOR` on the slope; the intercept is free but for a prior ten times as wide.
    """
    z = (x - x.mean()) / x.std()
    X = torch.stack([torch.ones_like(z), z], -1)
    penalty = torch.diag(torch.tensor([(10 * PRIOR) ** -2, PRIOR**-2], dtype=torch.float64))
    beta = torch.zeros(len(weights), 2, dtype=torch.float64)
    for _ in range(_STEPS):
        p = torch.sigmoid(beta @ X.mT)
        gradient = (weights * (works.double() - p)) @ X - beta @ penalty
        hessian = torch.einsum("bn,ni,nj->bij", weights * p * (1 - p), X, X) + penalty
        step = torch.linalg.solve(hessian, gradient)
        beta = beta + step.clamp(-2, 2)  # a full step from far away would overshoot
    return beta[:, 1]


class Table:
    """Cases by contrast and pair: a predictor, an outcome, and whether it works; NaN where there is no case.

    Contrasts are what is drawn again: pairs share their members, and a contrast that works on one is likely to on
    another.
    """

    def __init__(
        self,
        predictor: Float[Tensor, "contrasts pairs"],
        outcome: Float[Tensor, "contrasts pairs"],
        works: Bool[Tensor, "contrasts pairs"],
        generator: torch.Generator,
    ) -> None:
        self.predictor, self.outcome, self.works, self.generator = predictor, outcome, works, generator
        self.known = predictor.isfinite() & outcome.isfinite()

    @property
    def varies(self) -> bool:
        """Whether there is anything to rank."""
        sides = self.predictor[self.known], self.outcome[self.known]
        return all(len(side.unique()) > 2 for side in sides)

    def share(self) -> tuple[float, float, float]:
        """Of the cases that work, with a bootstrap interval over contrasts."""
        n, known = len(self.works), self.known.double().sum(1)
        works = (self.works & self.known).double().sum(1)
        drawn = torch.randint(n, (RESAMPLES, n), generator=self.generator)
        shares = works[drawn].sum(1) / known[drawn].sum(1)
        return (float(works.sum() / known.sum()), *_range(shares.tolist()))

    def rank_correlation(self) -> tuple[float, float, float]:
        """Spearman's, with a bootstrap interval over contrasts."""
        n = len(self.predictor)
        drawn = [torch.randint(n, (n,), generator=self.generator) for _ in range(RESAMPLES)]
        return (self._spearman(self.predictor, self.outcome), *_range([self._of(rows) for rows in drawn]))

    def permuted(self) -> tuple[float, float, float]:
        """Mean and 95 % range of Spearman's where contrasts have each other's predictors."""
        n = len(self.predictor)
        orders = [torch.randperm(n, generator=self.generator) for _ in range(RESAMPLES)]
        drawn = [self._spearman(self.predictor[order], self.outcome) for order in orders]
        kept = torch.tensor([value for value in drawn if value == value], dtype=torch.float64)
        return (float(kept.mean()), *_range(drawn))

    def slope(self) -> tuple[float, float, float] | None:
        """Of the log-odds that a case works, with a bootstrap interval; None where all do or none does."""
        works, n = self.works[self.known], len(self.predictor)
        x = self.predictor[self.known]
        if bool(works.all()) or not bool(works.any()) or not float(x.std()) > 0:
            return None
        counts = torch.zeros(RESAMPLES, n, dtype=torch.float64)
        drawn = torch.randint(n, (RESAMPLES, n), generator=self.generator)
        counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        rows = torch.nonzero(self.known)[:, 0]
        slopes = logistic_slope(x, works, torch.cat([torch.ones(1, len(x)).double(), counts[:, rows]]))
        return (float(slopes[0]), *_range(slopes[1:].tolist()))

    def _of(self, rows: Tensor) -> float:
        return self._spearman(self.predictor[rows], self.outcome[rows])

    @staticmethod
    def _spearman(predictor: Tensor, outcome: Tensor) -> float:
        known = predictor.isfinite() & outcome.isfinite()
        return spearman(predictor[known], outcome[known])


def _range(values: list[float]) -> tuple[float, float]:
    """The middle 95 % of those that are numbers."""
    kept = torch.tensor([value for value in values if value == value], dtype=torch.float64)
    low, high = kept.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
