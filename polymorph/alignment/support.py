"""Which part of a fitted orthogonal matrix the data determine.

xy = U Σ Vᵀ on the fit split gives R = U Vᵀ. A change δM of xy turns it, to first order, by δR = U Ω Vᵀ with

    Ω_ij = (G_ij − G_ji) / (σ_i + σ_j),   G = Uᵀ δM V                                    (Söderkvist 1993).

Both parts are taken from the eval split, where U and V are fixed matrices: the spread of G over independent
document blocks, and s_i = u_iᵀ xy v_i in place of σ_i. The σ_i of the fit are the maximum of what noise
offers and never near 0: with them, planes of pure noise would have a standard error of about 1/(3√d) and pass
for determined. A held-out s_i of noise has mean 0.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.alignment.moments import PairMoments

DETERMINED_WITHIN = 0.1
"""Standard error, in radians, below which a plane is called determined."""
SIGNED_WITHIN = 0.2
"""Relative standard error of a strength below which its direction has a sign: five standard errors from 0, because
the strongest of d directions of noise is looked at."""
PRECISION = 1e-10
"""Strength or variance, relative to the largest, below which a direction is rounding: float32 activations are exact to
1e-7 in standard deviation, and a mean that is large beside the spread costs two digits more."""
ON_AXIS = 0.9
"""|R_ij| above which an axis is carried to an axis; under Haar at d = 16, the largest entry stays below it in
999 of 1,000 draws."""


@dataclass(frozen=True)
class Support:
    """R = left @ rightᵀ, the determined directions first, each part in falling order of strength."""

    left: Float[Tensor, "*pairs d d"]
    right: Float[Tensor, "*pairs d d"]
    strength: Float[Tensor, "*pairs d"]
    """u_iᵀ C_xy v_i on the eval split, a covariance per token; about 0 where there is only noise."""
    standard_error: Float[Tensor, "*pairs d d"]
    """Of the angle Ω_ij, in radians; on the diagonal the relative error of the strength."""
    determined: Int[Tensor, "*pairs"]
    """r: the first r directions have all planes among themselves determined, and a sign."""
    rank: Int[Tensor, "*pairs"]
    """Numerical rank of the covariance on the eval split, the smaller of both sides'."""

    @property
    def matrix(self) -> Float[Tensor, "*pairs d d"]:
        """The whole fitted matrix, determined or not."""
        return self.left @ self.right.mT

    def __getitem__(self, index: int) -> "Support":
        """The support of one pair."""
        return Support(*(getattr(self, part.name)[index] for part in fields(self)))


def support(fit: PairMoments, score: PairMoments) -> Support:
    """The support of the pairs [pairs], from moments [blocks, pairs] of the fit split and of the eval split.

    Standard errors are those of the fit on all of `fit`; their degrees of freedom are the blocks of `score`
    less one. `ValueError` with fewer than two blocks that hold tokens.
    """
    U, _, Vh = torch.linalg.svd(fit.total().xy)
    V = Vh.mT
    parts = block_sums(score)
    blocks = parts.shape[0]
    if blocks < 2:
        raise ValueError(f"standard errors need at least two blocks of documents, got {blocks}")
    G = U.mT @ parts @ V
    tokens = filled(score).n
    share = (tokens / tokens.sum(0))[..., None, None]
    strength = G.sum(0).diagonal(dim1=-2, dim2=-1)
    skew = G - G.mT + torch.diag_embed(G.diagonal(dim1=-2, dim2=-1))
    spread = (skew - share * skew.sum(0)).square().sum(0) * blocks / (blocks - 1)
    scale = (score.n.sum(0) / fit.n.sum(0))[..., None, None]  # the fit has its own number of tokens
    error = _relative((scale * spread).sqrt(), strength)
    order, determined = _arranged(error, strength)
    error = error.gather(-1, order[..., None, :].expand_as(error))
    return Support(
        left=U.gather(-1, order[..., None, :].expand_as(U)),
        right=V.gather(-1, order[..., None, :].expand_as(V)),
        strength=strength.gather(-1, order) / score.n.sum(0)[..., None],
        standard_error=error.gather(-2, order[..., None].expand_as(error)),
        determined=determined,
        rank=numerical_rank(score.total()),
    )


def _arranged(
    error: Float[Tensor, "*pairs d d"], strength: Float[Tensor, "*pairs d"]
) -> tuple[Int[Tensor, "*pairs d"], Int[Tensor, "*pairs"]]:
    """An order of the directions with the determined ones first, and how many those are.

    From the strongest on, a direction is taken if it has a sign and its planes with all taken before are
    determined. One whose spread over documents is too wide is passed over and does not end the search.
    """
    order = strength.argsort(dim=-1, descending=True)
    signed = error.diagonal(dim1=-2, dim2=-1) < SIGNED_WITHIN
    sure = error < DETERMINED_WITHIN
    taken = torch.zeros_like(signed)
    for place in range(strength.shape[-1]):
        i = order[..., place : place + 1]
        planes = sure.gather(-2, i[..., None].expand(*i.shape[:-1], 1, sure.shape[-1])).squeeze(-2)
        fits = (planes | ~taken).all(-1, keepdim=True) & signed.gather(-1, i)
        taken.scatter_(-1, i, fits)
    first = (~taken.gather(-1, order)).long().argsort(dim=-1, stable=True)
    return order.gather(-1, first), taken.sum(-1)


def _relative(spread: Tensor, strength: Tensor) -> Float[Tensor, "*pairs d d"]:
    """spread_ij / (s_i + s_j), and spread_ii / s_i; infinite where the strength is no more than rounding."""
    both = strength.unsqueeze(-1) + strength.unsqueeze(-2)
    both = both - torch.diag_embed(strength)
    least = PRECISION * strength.amax(-1).clamp(min=0)[..., None, None]
    return torch.where(both > least, spread / both.abs().clamp(min=torch.finfo(both.dtype).tiny), torch.inf)


def numerical_rank(moments: PairMoments) -> Int[Tensor, "*batch"]:
    """Eigenvalues of the covariance that are more than rounding, on the side that has fewer."""
    sides = (torch.linalg.eigvalsh(side) for side in (moments.xx, moments.yy))
    ranks = [(values > PRECISION * values[..., -1:]).sum(-1) for values in sides]
    return torch.minimum(*ranks)


def filled(moments: PairMoments) -> PairMoments:
    """Those of the blocks [blocks, *pairs] that hold tokens; which ones is the same for every pair."""
    return moments[moments.n.flatten(1)[:, 0] > 0 if moments.n.ndim > 1 else moments.n > 0]


def block_sums(moments: PairMoments) -> Float[Tensor, "blocks *pairs d d"]:
    """xy of each block that holds tokens, about the means of all blocks together: they add up to the total."""
    kept = filled(moments)
    whole = kept.total()
    dx, dy = kept.mean_x - whole.mean_x, kept.mean_y - whole.mean_y
    return kept.xy + kept.n[..., None, None] * dx.unsqueeze(-1) * dy.unsqueeze(-2)


def restrict(moments: PairMoments, found: Support, r: int) -> PairMoments:
    """The moments of r coordinates a side: x along the strongest left directions, y along their images."""
    U, V = found.left[..., :r], found.right[..., :r]
    return PairMoments(
        moments.n,
        (moments.mean_x.unsqueeze(-2) @ U).squeeze(-2),
        (moments.mean_y.unsqueeze(-2) @ V).squeeze(-2),
        U.mT @ moments.xx @ U,
        V.mT @ moments.yy @ V,
        U.mT @ moments.xy @ V,
    )


def split_half_angle(fit: PairMoments, found: Support, r: int) -> Float[Tensor, "*pairs"]:
    """By how much R of one half of the fit blocks differs from R of the other on the support, in radians.

    The root mean square over the r directions of ‖u_i (R_1 − R_2)‖: 0 for agreement, √2 for two matrices
    that have nothing to do with one another.
    """
    halves = []
    for half in (0, 1):
        U, _, Vh = torch.linalg.svd(fit[half::2].total().xy)
        halves.append(U @ Vh)
    difference = found.left[..., :r].mT @ (halves[0] - halves[1])
    return (difference.square().sum((-2, -1)) / max(r, 1)).sqrt()


def trace_on_support(found: Support, r: int) -> Float[Tensor, "*pairs"]:
    """Σ_{i ≤ r} u_iᵀ v_i: the trace of R over its determined directions."""
    return (found.left[..., :r] * found.right[..., :r]).sum((-2, -1))


def pinned_dimension(found: Support, r: int) -> int:
    """How many dimensions of the determined support R leaves where they are, for one pair.

    The eigenvalues λ of the symmetric part of V_rᵀ U_r have ‖c − c R‖² = 2(1 − λ) for their directions c. A
    pinned direction has about τ² = Σ_j SE(Ω_cj)², and the smallest of k of them stay below 4τ²
    (‖noise [k, d]‖ ≤ s(√k + √d)). Of r angles of a Haar matrix, r·2τ/π lie as near to 0: they are subtracted.
    """
    if r == 0:
        return 0
    turn = found.right[:, :r].mT @ found.left[:, :r]
    values = torch.linalg.eigvalsh((turn + turn.mT) / 2)
    error = found.standard_error[:r].clone()
    error[:, r:] = torch.where(error[:, r:].isfinite(), error[:, r:], 0.0)
    error.diagonal().zero_()
    reach = 2 * float(error.square().sum(-1).max().sqrt()) + 1e-6
    chance = r * reach / torch.pi if r == turn.shape[0] else 0.0
    return max(0, round(int((2 * (1 - values) <= reach**2).sum()) - min(chance, 0.5 * r)))


def privileged_axes(found: Support, r: int) -> int:
    """How many coordinate axes of the source the determined part of R carries to axes of the target."""
    partial = found.left[:, :r] @ found.right[:, :r].mT
    return int((partial.abs() > ON_AXIS).sum())
