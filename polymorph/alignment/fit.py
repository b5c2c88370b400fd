"""Least-squares maps from moments, one family after another, batched over the leading axes of the moments.

Every fit minimises Σ‖T(x) − y‖² over its family. With the mean shift, the best weight W depends on the
centred sums alone: tr(Wᵀ xx W) − 2 tr(Wᵀ xy) + tr(yy). The regressions are in `regression`.
"""

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from polymorph.alignment.accumulator import pair_moments
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments, explained_variance_from_sums
from polymorph.alignment.polar import least_direction, nearest_rotation, polar
from polymorph.alignment.solvable import require, source_spread


def identity(moments: PairMoments) -> Map:
    """y = x, without a mean shift."""
    require(moments)
    zero = torch.zeros_like(moments.mean_x)
    return Map("identity", _eye(moments), zero, zero)


def shift(moments: PairMoments) -> Map:
    """y = x − mean_x + mean_y."""
    require(moments)
    return Map("shift", _eye(moments), moments.mean_x, moments.mean_y)


def signed_permutation(moments: PairMoments) -> Map:
    """y = x P with P a permutation of the dimensions with signs, without a mean shift.

    Σ‖xP − y‖² = Σ‖x‖² + Σ‖y‖² − 2 tr(Pᵀ S) with the uncentred S = Σ x yᵀ = xy + n mean_x mean_yᵀ, so the best P
    has the signs of S and is the assignment that maximises Σ_i |S_iσ(i)| (Kuhn 1955).
    """
    require(moments)
    means = moments.mean_x.unsqueeze(-1) * moments.mean_y.unsqueeze(-2)
    S = moments.xy + moments.n[..., None, None] * means
    each = [_assignment(one) for one in S.cpu().reshape(-1, *S.shape[-2:])]
    weight = torch.stack(each).reshape(S.shape).to(S.device)
    zero = torch.zeros_like(moments.mean_x)
    return Map("signed_permutation", weight, zero, zero)


def orthogonal(moments: PairMoments) -> Map:
    """The best W of O(d): the polar factor of xy (Schönemann 1966).

    tr(Wᵀ xx W) = tr(xx) for orthogonal W, so the best W maximises tr(Wᵀ xy). With xy = U Σ Vᵀ that is
    tr(Σ Vᵀ Wᵀ U) = Σ σ_i Q_ii with Q = Vᵀ Wᵀ U orthogonal, hence |Q_ii| ≤ 1: the maximum Σ σ_i is at Q = I,
    W = U Vᵀ. Where σ_i = 0 the data do not determine W, and the one returned is arbitrary there.
    """
    return Map("orthogonal", _nearest(moments), moments.mean_x, moments.mean_y)


def rotation(moments: PairMoments) -> Map:
    """The best W of SO(d): as `orthogonal`, and if its determinant is −1 the direction of the least σ is reversed."""
    R = _nearest(moments)
    turned = nearest_rotation(R, _least_direction(moments, R))
    return Map("rotation", turned, moments.mean_x, moments.mean_y)


def similarity(moments: PairMoments) -> Map:
    """The best s·W with W of O(d) and s ≥ 0: W as in `orthogonal`, s = Σ σ_i / tr(xx), and Σ σ_i = tr(Wᵀ xy)."""
    R = _nearest(moments)
    scale = _inner(R, moments.xy) / source_spread(moments)
    return Map("similarity", scale[..., None, None] * R, moments.mean_x, moments.mean_y)


def r2_from_moments(fitted: Map, moments: PairMoments) -> Float[Tensor, "*batch"]:
    """R² of a map on the tokens behind `moments` [*batch], which should not be those that fitted it.

    Σ‖T(x) − y‖² = tr(xx WWᵀ) − 2 tr(xyᵀ W) + tr(yy) + n‖δ‖², with δ the error of T at the mean of x. Leading
    axes broadcast: one map per pair scores moments [blocks, pairs].
    """
    W = fitted.weight
    moved = ((moments.mean_x - fitted.mean_in).unsqueeze(-2) @ W).squeeze(-2)
    delta = moved + fitted.mean_out - moments.mean_y
    about_mean = _inner(moments.xx, W @ W.mT) - 2 * _inner(moments.xy, W) + _trace(moments.yy)
    residual = about_mean.clamp(min=0) + moments.n * delta.square().sum(-1)
    return explained_variance_from_sums(residual, moments.spread_y.sum(-1))


def fit_orthogonal(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Map:
    """The rotation, or rotation with a reflection, that takes x nearest to y, from n > d rows.

    Float64 inside and out; score it on other rows, with `explained_variance(map(x), y)`.
    """
    return orthogonal(pair_moments(x, y))


def fit_rotation(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Map:
    """The rotation, of determinant +1, that takes x nearest to y; as `fit_orthogonal`, which allows a reflection."""
    return rotation(pair_moments(x, y))


def _nearest(moments: PairMoments) -> Float[Tensor, "*batch d d"]:
    """The polar factor of xy, found once for the moments and their `swap`."""
    require(moments, full=True)
    if _decomposed(moments):
        U, _, Vh = moments.cross_svd
        return U @ Vh
    source = moments.swapped_from
    if source is not None:
        return _nearest(source).mT
    return moments.once("polar", lambda: polar(moments.xy))


def _decomposed(moments: PairMoments) -> bool:
    """Whether the singular value decomposition is there, or is the fast route."""
    return moments.xy.device.type == "cpu" or "cross_svd" in vars(moments)


def _least_direction(moments: PairMoments, R: Tensor) -> Float[Tensor, "*batch d"]:
    """The right singular vector of the least singular value of xy."""
    if _decomposed(moments):
        return moments.cross_svd[2][..., -1, :]
    return least_direction(R, moments.xy)


def _assignment(S: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    rows, columns = linear_sum_assignment(S.abs().numpy(), maximize=True)
    P = torch.zeros_like(S)
    P[rows, columns] = torch.where(S[rows, columns] < 0, -1.0, 1.0).to(S)
    return P


def _eye(moments: PairMoments) -> Tensor:
    one = torch.eye(moments.xx.shape[-1], dtype=torch.float64, device=moments.xx.device)
    return one.expand_as(moments.xx)


def _trace(C: Tensor) -> Tensor:
    return C.diagonal(dim1=-2, dim2=-1).sum(-1)


def _inner(A: Tensor, B: Tensor) -> Tensor:
    """Σ_ij A_ij B_ij over the last two axes, without the product in memory."""
    return torch.einsum("...ij,...ij->...", A, B)
