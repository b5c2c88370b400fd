"""Linear regressions from moments: ridge and reduced rank, with their ridge and rank by cross-validation.

The folds are groups of document blocks, so no document is on both sides. Both choices come from one
eigendecomposition xx = Q Λ Qᵀ per pair and training fold: with A = Qᵀ xy the weight of ridge λ is
Q (Λ + λI)⁻¹ A, and held-out sums of squares need no token.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments, explained_variance_from_sums
from polymorph.alignment.solvable import require, source_spread

RELATIVE_RIDGE = 1e-8
RIDGES = (RELATIVE_RIDGE, *(10 ** (tenths / 2) for tenths in range(-15, 1)))  # up to 1, two a decade
MOST_FOLDS = 4
SLAB_NUMBERS = 2**25  # float64 numbers of moments that are cross-validated at a time (256 MiB)


def affine(moments: PairMoments) -> Map:
    """Least squares with a tiny ridge: W = (xx + λI)⁻¹ xy, λ = 1e-8 tr(xx)/d; d_x and d_y may differ.

    Rank-deficient xx is usual at early sites. A pseudo-inverse would cut at about 1e-14 of the largest
    eigenvalue, just where the rounding of float32 activations lies (1e-7 in standard deviation), and would
    turn it into large weights. The ridge lies far above that, and leaves a direction with a thousandth of the
    mean variance with 1e-5 of shrinkage, which costs 1e-10 of its variance.
    """
    return Map("affine", _ridge_weight(moments, RELATIVE_RIDGE), moments.mean_x, moments.mean_y)


def affine_cv(blocks: PairMoments) -> Map:
    """`affine` of all blocks [blocks *batch] with the ridge of `choose_ridge`, one per pair.

    With tokens in fewer than two blocks nothing can be held out: the ridge is then the tiny one.
    """
    moments = blocks.total()
    ridge: Tensor | float = RELATIVE_RIDGE if len(_filled(blocks)) < 2 else choose_ridge(blocks)
    return Map("affine", _ridge_weight(moments, ridge), moments.mean_x, moments.mean_y)


def reduced_rank(moments: PairMoments, rank: int | Int[Tensor, "*batch"]) -> Map:
    """The least-squares map of at most `rank` output directions (Izenman 1975), one rank or one per pair.

    With W the weight of `affine` and V_k the leading eigenvectors of the fitted second moments Wᵀ xx W, it is
    W V_k V_kᵀ: the residual of a map of rank k is that of W plus ‖xx^{1/2}(W − W')‖², least by Eckart–Young.
    """
    weight = _ridge_weight(moments, RELATIVE_RIDGE)
    most = min(weight.shape[-2:])
    given = torch.as_tensor(rank, device=weight.device).expand(moments.n.shape)
    if not bool(((given >= 1) & (given <= most)).all()):
        raise ValueError(
            f"a map of {' to '.join(map(str, weight.shape[-2:]))} has rank 1 to {most}, not {rank}"
        )
    V = _fitted_directions(weight, moments.xx)
    kept = torch.arange(V.shape[-1], device=V.device) < given[..., None]
    V = V * kept.unsqueeze(-2)
    return Map("reduced_rank", weight @ V @ V.mT, moments.mean_x, moments.mean_y)


def reduced_rank_cv(blocks: PairMoments) -> Map:
    """`reduced_rank` of all blocks [blocks *batch] with the rank of `choose_rank`, one per pair."""
    return reduced_rank(blocks.total(), choose_rank(blocks))


def choose_ridge(blocks: PairMoments) -> Float[Tensor, "*batch"]:
    """Of `RIDGES`, in units of tr(xx)/d, the one with the best held-out R², one per pair."""
    return _by_slab(blocks, lambda folds: (folds.ridge(),))[0]


def choose_rank(blocks: PairMoments) -> Int[Tensor, "*batch"]:
    """The smallest rank that held-out tokens cannot tell from the best one [*batch], from [blocks *batch].

    The loss of a rank against the best is averaged over folds, and may be up to one standard error of that
    mean (the rule of Breiman et al. 1984, on paired differences: what makes a fold hard for every rank is
    not noise of the comparison). The best rank itself would be too large half of the time, because held-out
    scores are almost flat beyond the true rank. At least two blocks must hold tokens.
    """
    return _by_slab(blocks, lambda folds: (folds.rank(),))[0]


def cross_validated(blocks: PairMoments) -> tuple[Float[Tensor, "*batch"], Int[Tensor, "*batch"]]:
    """`choose_ridge` and `choose_rank` together, from the same eigendecompositions."""
    ridge, rank = _by_slab(blocks, lambda folds: (folds.ridge(), folds.rank()))
    return ridge, rank


def cross_validated_maps(blocks: PairMoments, moments: PairMoments) -> dict[str, Map]:
    """`reduced_rank_cv` and `affine_cv`, given the total `moments` of the blocks.

    With tokens in fewer than two blocks there is nothing to choose a rank on: only `affine` is there.
    """
    if len(_filled(blocks)) < 2:
        return {"affine": affine(moments)}
    ridge, rank = cross_validated(blocks)
    freest = Map("affine", _ridge_weight(moments, ridge), moments.mean_x, moments.mean_y)
    return {"reduced_rank": reduced_rank(moments, rank), "affine": freest}


@dataclass(frozen=True)
class _Folds:
    """Held-out groups of blocks and, for each, the moments of all the others; both [folds pairs]."""

    held: PairMoments
    train: PairMoments

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor, Tensor]:
        """Λ [folds pairs d_x], Q [folds pairs d_x d_x] and A = Qᵀ xy of the training sums."""
        values, Q = torch.linalg.eigh(self.train.xx)
        return values.clamp(min=0), Q, Q.mT @ self.train.xy

    @cached_property
    def units(self) -> Float[Tensor, "folds pairs"]:
        return source_spread(self.train) / self.train.xx.shape[-1]

    def ridge(self) -> Float[Tensor, "pairs"]:
        """Where Σ‖y − ŷ‖² over the folds is least; of equals the smallest ridge.

        With D = (Λ + λI)⁻¹, K = Qᵀ xx_held Q and C = Qᵀ xy_held it is, but for tr(yy), tr(AᵀDKDA) − 2 tr(AᵀDC)
        + n‖δ‖²: a quadratic form of the diagonal of D.
        """
        values, Q, A = self.eigen
        square = (Q.mT @ self.held.xx @ Q) * (A @ A.mT)
        linear = (A * (Q.mT @ self.held.xy)).sum(-1)
        move = ((self.held.mean_x - self.train.mean_x).unsqueeze(-2) @ Q).squeeze(-2)
        offset = self.train.mean_y - self.held.mean_y
        losses = []
        for ridge in RIDGES:
            D = 1 / (values + ridge * self.units[..., None])
            delta = ((move * D).unsqueeze(-2) @ A).squeeze(-2) + offset
            fitted = ((D.unsqueeze(-2) @ square).squeeze(-2) * D).sum(-1) - 2 * (D * linear).sum(-1)
            losses.append((fitted + self.held.n * delta.square().sum(-1)).sum(0))
        best = torch.stack(losses).argmin(0)
        return torch.tensor(RIDGES, dtype=torch.float64, device=best.device)[best]

    def rank(self) -> Int[Tensor, "pairs"]:
        """As `choose_rank`."""
        r2 = self._r2_by_rank()
        best = r2.mean(0).argmax(-1, keepdim=True)
        worse = r2.gather(-1, best.expand(*r2.shape[:-1], 1)) - r2  # [folds pairs ranks]
        error = worse.std(0) / math.sqrt(len(worse))
        return (worse.mean(0) <= error).long().argmax(-1) + 1  # the first of them: argmax of equals

    def _r2_by_rank(self) -> Float[Tensor, "folds pairs ranks"]:
        """Held-out R² of ranks 1, 2, …: each output direction adds its own term, so they are running sums."""
        values, Q, A = self.eigen
        weight = Q @ (A / (values + RELATIVE_RIDGE * self.units[..., None]).unsqueeze(-1))
        V = _fitted_directions(weight, self.train.xx)
        U = weight @ V
        move = ((self.held.mean_x - self.train.mean_x).unsqueeze(-2) @ U).squeeze(-2)
        offset = self.train.mean_y - self.held.mean_y
        along = (offset.unsqueeze(-2) @ V).squeeze(-2)
        terms = (U * (self.held.xx @ U)).sum(-2) - 2 * (V * (self.held.xy.mT @ U)).sum(-2)
        terms = terms + self.held.n[..., None] * ((move + along).square() - along.square())
        total = self.held.spread_y.sum(-1)
        constant = total + self.held.n * offset.square().sum(-1)
        residual = constant[..., None] + terms.cumsum(-1)
        return explained_variance_from_sums(residual, total[..., None].expand_as(residual))


def _ridge_weight(moments: PairMoments, relative: float | Tensor) -> Float[Tensor, "*batch d_x d_y"]:
    """(xx + λI)⁻¹ xy with λ = relative · tr(xx)/d."""
    require(moments, square=False, full=True)
    d = moments.xx.shape[-1]
    ridge = relative * source_spread(moments) / d
    one = torch.eye(d, dtype=torch.float64, device=moments.xx.device)
    lower = torch.linalg.cholesky(moments.xx + ridge[..., None, None] * one)
    return torch.cholesky_solve(moments.xy, lower)


def _fitted_directions(weight: Tensor, xx: Tensor) -> Float[Tensor, "*batch d_y ranks"]:
    """Eigenvectors of Wᵀ xx W by falling eigenvalue; no more than the rank that W can have."""
    fitted = weight.mT @ xx @ weight
    V = torch.linalg.eigh((fitted + fitted.mT) / 2).eigenvectors.flip(-1)
    return V[..., : min(weight.shape[-2:])]


def _filled(blocks: PairMoments) -> Int[Tensor, "filled"]:
    """The blocks that hold tokens of every pair."""
    return (
        (blocks.n.flatten(1) > 0).all(1).nonzero().squeeze(1)
        if blocks.n.ndim > 1
        else blocks.n.nonzero()[:, 0]
    )


def _by_slab(blocks: PairMoments, solve: Callable[[_Folds], tuple[Tensor, ...]]) -> list[Tensor]:
    """What `solve` says of the folds of each pair [*batch], for as many pairs at a time as memory bears."""
    require(blocks.total(), square=False, full=True)
    filled = _filled(blocks)
    if len(filled) < 2:
        raise ValueError(
            f"cross-validation needs tokens in at least two blocks of documents, not {len(filled)}"
        )
    batch = blocks.n.shape[1:]
    parts = {f.name: getattr(blocks, f.name) for f in fields(blocks)}
    flat = {key: part.flatten(1, len(batch)) if batch else part[:, None] for key, part in parts.items()}
    folds = min(MOST_FOLDS, len(filled))
    numbers = (
        folds * (blocks.xx[0].numel() + blocks.yy[0].numel() + blocks.xy[0].numel()) / max(1, batch.numel())
    )
    found = []
    for pairs in torch.arange(batch.numel()).split(max(1, int(SLAB_NUMBERS / numbers))):
        some = PairMoments(**{key: part[:, pairs] for key, part in flat.items()})
        held = _stack([some[filled[fold::folds]].total() for fold in range(folds)])
        found.append(solve(_Folds(held, held.leave_one_out())))
    return [torch.cat(choice).reshape(batch) for choice in zip(*found, strict=True)]


def _stack(groups: list[PairMoments]) -> PairMoments:
    parts = {f.name: torch.stack([getattr(group, f.name) for group in groups]) for f in fields(PairMoments)}
    return PairMoments(**parts)
