"""Streaming moments of pairs of variables, and the one explained variance.

Everything linear between two members at a site (maps, their R², CKA, dimension) follows from n, two means and
three centred second-moment sums. They are accumulated in float64, in memory that does not depend on the
number of tokens, with a leading axis of document blocks: tokens of one document are not independent, so every
interval deletes or resamples whole blocks. Block b holds the documents whose index is b modulo the number of
blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

ROUNDING = 64 * torch.finfo(torch.float64).eps  # relative error of a mean that is still rounding

Factors = tuple[Tensor, Tensor, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class PairMoments:
    """Moments of x and y over the same n tokens, for any leading axes (blocks, pairs, sites).

    `xx`, `yy` and `xy` are centred sums, not divided by n: xy = Σ (x − mean_x)(y − mean_y)ᵀ.
    Decompositions are paid for once: they are kept with the moments and follow `swap`, `[]` and `to`.
    """

    n: Float64[Tensor, "*batch"]
    mean_x: Float64[Tensor, "*batch d_x"]
    mean_y: Float64[Tensor, "*batch d_y"]
    xx: Float64[Tensor, "*batch d_x d_x"]
    yy: Float64[Tensor, "*batch d_y d_y"]
    xy: Float64[Tensor, "*batch d_x d_y"]

    def __getitem__(self, index: Any) -> "PairMoments":
        """The moments at an index of the leading axes."""
        if self.n.ndim == 0:
            raise IndexError("these moments have no leading axis")
        return self._each(lambda values: values[index])

    def swap(self) -> "PairMoments":
        """The same tokens, with y as the source and x as the target."""
        swapped = PairMoments(self.n, self.mean_y, self.mean_x, self.yy, self.xx, self.xy.mT)
        swapped.__dict__["swapped_from"] = self  # the same numbers in memory: nothing is held twice
        if "cross_svd" in self.__dict__:
            swapped.__dict__["cross_svd"] = _transposed(self.cross_svd)
        return swapped

    @cached_property
    def swapped_from(self) -> "PairMoments | None":
        """The moments of which these are the `swap`, whose decompositions serve here too."""
        return None

    @cached_property
    def cross_svd(self) -> Factors:
        """U [*batch d_x k], σ [*batch k] descending, Vᵀ [*batch k d_y] of xy = U Σ Vᵀ, k = min(d_x, d_y)."""
        if self.swapped_from is not None:
            return _transposed(self.swapped_from.cross_svd)
        U, singular, Vh = torch.linalg.svd(self.xy, full_matrices=False)
        return U, singular, Vh

    def once(self, name: str, solve: Callable[[], T]) -> T:
        """What `solve` returns, computed at the first call with this name and kept with these moments."""
        kept = self.__dict__.setdefault("_kept", {})
        if name not in kept:
            kept[name] = solve()
        return kept[name]

    def within(self, basis: Float64[Tensor, "d k"]) -> "PairMoments":
        """Those of x and y projected onto orthonormal columns, the same ones on both sides."""
        x, y = self.mean_x @ basis, self.mean_y @ basis
        return PairMoments(self.n, x, y, *(basis.mT @ of @ basis for of in (self.xx, self.yy, self.xy)))

    def to(self, device: torch.device | str) -> "PairMoments":
        """The same moments on another device."""
        return self._each(lambda values: values.to(device))

    @property
    def spread_x(self) -> Float64[Tensor, "*batch d_x"]:
        """Σ (x − mean_x)² of each dimension; exactly 0 where it is no more than rounding of the mean."""
        return _spread(self.n, self.mean_x, self.xx.diagonal(dim1=-2, dim2=-1))

    @property
    def spread_y(self) -> Float64[Tensor, "*batch d_y"]:
        """Σ (y − mean_y)² of each dimension; exactly 0 where it is no more than rounding of the mean."""
        return _spread(self.n, self.mean_y, self.yy.diagonal(dim1=-2, dim2=-1))

    def merge(self, other: "PairMoments") -> "PairMoments":
        """Moments of the union of two disjoint sets of tokens."""
        both = {f.name: torch.stack([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)}
        return PairMoments(**both).total()

    @property
    def nbytes(self) -> int:
        return sum(of.nbytes for of in (self.n, self.mean_x, self.mean_y, self.xx, self.yy, self.xy))

    def total(self) -> "PairMoments":
        """Merge the first axis: sums within blocks plus the scatter of their means (Chan et al. 1983); done once."""
        return self.once("total", self._total)

    def _total(self) -> "PairMoments":
        n = self.n.sum(0)
        weight = (self.n / n.clamp(min=1)).unsqueeze(-1)
        mean_x, mean_y = (weight * self.mean_x).sum(0), (weight * self.mean_y).sum(0)
        dx, dy = self.mean_x - mean_x, self.mean_y - mean_y
        xx = self.xx.sum(0) + scatter(self.n, dx, dx)
        yy = self.yy.sum(0) + scatter(self.n, dy, dy)
        return PairMoments(n, mean_x, mean_y, xx, yy, self.xy.sum(0) + scatter(self.n, dx, dy))

    def leave_one_out(self) -> "PairMoments":
        """Along the first axis, the moments of all blocks but this one: `total` solved for the other part."""
        whole = self.total()
        rest = whole.n - self.n
        share = self.n / rest.clamp(min=1)
        dx, dy = self.mean_x - whole.mean_x, self.mean_y - whole.mean_y
        mean_x, mean_y = whole.mean_x - share[..., None] * dx, whole.mean_y - share[..., None] * dy
        xx = whole.xx - self.xx - _outer(share * whole.n, dx, dx)
        yy = whole.yy - self.yy - _outer(share * whole.n, dy, dy)
        xy = whole.xy - self.xy - _outer(share * whole.n, dx, dy)
        return PairMoments(rest, mean_x, mean_y, xx, yy, xy)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "PairMoments":
        changed = PairMoments(**{field.name: change(getattr(self, field.name)) for field in fields(self)})
        if "cross_svd" in self.__dict__:
            changed.__dict__["cross_svd"] = tuple(change(factor) for factor in self.cross_svd)
        return changed


def explained_variance(prediction: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> float:
    """1 − Σ‖y − ŷ‖² / Σ‖y − ȳ‖², with ȳ the mean of each dimension, in float64.

    A perfect prediction has 1, the mean of the target 0; it has no lower bound.
    """
    if prediction.shape != target.shape or target.ndim != 2:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must be one [n d]"
        )
    guess, truth = finite(prediction, "prediction").double(), finite(target, "target").double()
    mean = truth.mean(0)
    spread = _spread(torch.tensor(len(truth)), mean, (truth - mean).square().sum(0))
    return float(explained_variance_from_sums((truth - guess).square().sum(), spread.sum()))


def explained_variance_from_sums(residual: Float[Tensor, "*batch"], total: Float[Tensor, "*batch"]) -> Tensor:
    """1 − residual / total from sums of squares [*batch]; the only place that divides one by the other."""
    if not bool((total > 0).all()):
        raise ValueError("the target has no variance: explained variance is not defined")
    return 1 - residual / total


def participation_ratio(covariance: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """(tr C)² / tr C² [*batch]: the effective number of dimensions, 1 to d, whatever the scale of C."""
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    if not bool((trace > 0).all()):
        raise ValueError("a covariance without variance has no participation ratio")
    return trace.square() / covariance.square().sum((-2, -1))


def _transposed(factors: Factors) -> Factors:
    U, singular, Vh = factors
    return Vh.mT, singular, U.mT


def _outer(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (n[..., None] * a).unsqueeze(-1) * b.unsqueeze(-2)


def scatter(n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ_b n_b a_b b_bᵀ over the first axis, as one product, without the blocks · d² terms in memory."""
    return torch.einsum("b...i,b...j->...ij", n[..., None] * a, b)


def _spread(n: Tensor, mean: Tensor, squares: Tensor) -> Tensor:
    return torch.where(squares > n[..., None] * (ROUNDING * mean).square(), squares, 0.0)


def finite(values: Tensor, name: str) -> Tensor:
    if values.numel() and not all(bool(torch.isfinite(end)) for end in values.aminmax()):  # NaN goes through
        raise ValueError(f"{name} has values that are not finite")
    return values
