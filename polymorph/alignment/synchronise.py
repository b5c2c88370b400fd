"""One frame per member instead of one map per pair: generalised Procrustes, and what the consensus predicts.

m members have m(m − 1)/2 pairwise maps but only m − 1 free frames. Frames are consistent round every cycle and
pool the tokens' evidence of all pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from polymorph.alignment.cycles import pair_table, relative_cross, row
from polymorph.alignment.families import FITS
from polymorph.alignment.fit import orthogonal, r2_from_moments
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments

SPECTRAL_SIDE = 1024  # largest side m·d of the block matrix for which its eigenvectors are the start
SWEEPS = 200
RELATIVE_GAIN = 1e-12
SAME_MEAN_WITHIN = 1e-6  # in root mean square distances: two records of one member's mean differ by rounding

TurnFit = Literal["orthogonal", "similarity", "affine"]
"""Families that contain every rotation of the source, so that the gauge of the consensus does not matter."""


@dataclass(frozen=True)
class Frames:
    """z ≈ (x_i − mean_i) @ turn_i takes every member i into the frame of member 0: turn_0 = I, the gauge.

    `objective` is Σ_{i<j} tr(Q_iᵀ Ĉ_ij Q_j) / Σ_{i<j} ‖Ĉ_ij‖_*, at most 1, which it is when pairwise maps agree
    round every cycle. It is not 0 for unrelated members, whose frames fit the noise: always 1 for two, 0.7 for
    six (measured), at most 0.75 π/√m for many white ones. `iterations` counts sweeps; without `converged` they ran out.
    """

    turn: Float64[Tensor, "members d d"]
    mean: Float64[Tensor, "members d"]
    iterations: int
    objective: float
    converged: bool

    def map(self, i: int, j: int) -> Map:
        """Member i to member j through the common frame: weight Q_i Q_jᵀ."""
        return self.maps([(i, j)])[0]

    def maps(self, pairs: Sequence[tuple[int, int]]) -> Map:
        """`map` of every pair, with the leading axis [pairs]."""
        i, j = (list(side) for side in zip(*pairs, strict=True))
        return Map("orthogonal", self.turn[i] @ self.turn[j].mT, self.mean[i], self.mean[j])


def synchronise(moments: PairMoments, pairs: Sequence[tuple[int, int]]) -> Frames:
    """The frames Q_i of O(d) that maximise Σ_{i<j} tr(Q_iᵀ Ĉ_ij Q_j); moments [pairs] of all pairs, i < j.

    With X_i the centred rows of member i divided by √tr C_i, Ĉ_ij = X_iᵀ X_j and ‖X_i Q_i − X_j Q_j‖² =
    2 − 2 tr(Q_iᵀ Ĉ_ij Q_j), since Q_i leaves ‖X_i‖ = 1. Maximising the sum is generalised Procrustes,
    minimising Σ_{i<j} ‖X_i Q_i − X_j Q_j‖² (Gower 1975, ten Berge 1977); the division keeps a member of large
    scale from dominating. All but Q_i held fixed, the sum is tr(Q_iᵀ Σ_j Ĉ_ij Q_j) + const, whose maximum is at
    the polar factor of Σ_{j≠i} Ĉ_ij Q_j (as in `orthogonal`): a sweep sets each Q_i to it, and the objective
    never falls. The optimum found may be local where noise is as large as signal and n is a few d (by less than
    1e-3 of the objective in simulations); hence the start: the top d eigenvectors of the block matrix of
    pairwise maps, block by block projected on O(d) (Singer 2011; Arrigoni et al. 2016), because R_ij = Q_i Q_jᵀ
    would make them the stacked Q_i; and where that matrix is larger than `SPECTRAL_SIDE`, the pairwise maps to
    the member with the greatest Σ_j ‖Ĉ_ij‖_*. Where the data do not determine Q_i it is arbitrary.
    """
    table, cross = relative_cross(moments, pairs)
    return _solve(cross, orthogonal(moments).weight, table, _member_means(moments, table))


def synchronised_r2(
    frames: Frames, scored: PairMoments, pairs: Sequence[tuple[int, int]]
) -> Float64[Tensor, "*batch"]:
    """R² of the maps through the frames on other tokens than fitted the frames, [pairs] or [blocks pairs]."""
    return r2_from_moments(frames.maps(pairs), scored)


def consensus(
    frames: Frames, moments: PairMoments, pairs: Sequence[tuple[int, int]], without: int
) -> PairMoments:
    """Moments of (z, x_i), i = `without`: z = Σ_{j≠i} (x_j − μ_j) Q_j / k is the mean configuration of the others.

    `frames` are those of the k = m − 1 others, in order, so that they cannot have seen i; μ_j are their means.
    The tokens of `moments` may be others, with means M_j. z is affine in the x_j: its mean is
    Σ_j (M_j − μ_j) Q_j / k, and its centred sums are xx = Σ_jl Q_jᵀ C_jl Q_l / k², xy = Σ_j Q_jᵀ C_ji / k.
    """
    table = pair_table(pairs)
    if not 0 <= without < len(table) or len(frames.turn) != len(table) - 1:
        raise ValueError(
            f"leaving member {without} out of {len(table)} takes {len(table) - 1} frames, not {len(frames.turn)}"
        )
    rest, k, Q = _others(without, len(table)), len(table) - 1, frames.turn
    turn = Q.new_zeros(len(table), *Q.shape[1:])  # a zero leaves the member out of every pull
    turn[rest] = Q
    mean, own = _member_means(moments, table), _by_member(moments.xx, moments.yy, table)
    pulls = own[rest] @ Q + torch.stack([_pull(moments.xy, table, turn, j) for j in rest])
    xx = torch.einsum("jab,jac->bc", Q, pulls) / k**2
    xy = _pull(moments.xy, table, turn, without).mT / k
    mean_x = torch.einsum("ja,jab->b", mean[rest] - frames.mean, Q) / k
    return PairMoments(moments.n[0], mean_x, mean[without], (xx + xx.mT) / 2, own[without], xy)


def leave_one_out_r2(
    fit: PairMoments, scored: PairMoments, pairs: Sequence[tuple[int, int]], fit_name: TurnFit = "orthogonal"
) -> Float64[Tensor, "members"]:
    """How well the consensus of the other members predicts each member on other tokens, R² [members].

    Frames of the others and the map from their consensus to the member come from `fit`; `scored` only scores.
    The consensus averages what others do not share, so this may exceed the R² of every pair.
    """
    if fit_name not in ("orthogonal", "similarity", "affine"):
        raise ValueError(f"{fit_name!r} depends on the gauge: choose orthogonal, similarity or affine")
    table, cross = relative_cross(fit, pairs)
    if len(table) < 3:
        raise ValueError(f"a consensus of others needs at least three members, not {len(table)}")
    R, mean = orthogonal(fit).weight, _member_means(fit, table)
    scores = []
    for i in range(len(table)):
        rest = _others(i, len(table))
        frames = _solve(cross, R, table[rest][:, rest], mean[rest])
        fitted = FITS[fit_name](consensus(frames, fit, pairs, i))
        scores.append(r2_from_moments(fitted, consensus(frames, scored, pairs, i)))
    return torch.stack(scores)


def _solve(cross: Tensor, R: Tensor, table: Tensor, mean: Tensor) -> Frames:
    """Frames of the members of `table`, whose entries say where their pairs are in `cross` and R [pairs d d]."""
    start = _spectral_start if len(table) * R.shape[-1] <= SPECTRAL_SIDE else _star_start
    turn, sweeps, converged = _ascend(cross, table, start(cross, R, table))
    i, j = torch.combinations(torch.arange(len(table)), 2).unbind(1)
    bound = (R[table[i, j]] * cross[table[i, j]]).sum()
    objective = float(_objective(cross, table, turn) / bound)
    return Frames(turn @ turn[0].mT, mean, sweeps, objective, converged)


def _spectral_start(cross: Tensor, R: Tensor, table: Tensor) -> Float64[Tensor, "members d d"]:
    m, d = len(table), R.shape[-1]
    blocks = torch.eye(m * d, dtype=R.dtype, device=R.device).view(m, d, m, d)
    for i in range(m):
        blocks[i][:, _others(i, m)] = row(R, table, i).transpose(0, 1)
    top = torch.linalg.eigh(blocks.view(m * d, m * d)).eigenvectors[:, -d:]
    return _polar(top.reshape(m, d, d))


def _star_start(cross: Tensor, R: Tensor, table: Tensor) -> Float64[Tensor, "members d d"]:
    m, d = len(table), R.shape[-1]
    strength = [float((row(R, table, i) * row(cross, table, i)).sum()) for i in range(m)]
    hub = max(range(m), key=strength.__getitem__)
    turn = torch.eye(d, dtype=R.dtype, device=R.device).repeat(m, 1, 1)
    turn[_others(hub, m)] = row(R, table, hub).mT
    return turn


def _ascend(cross: Tensor, table: Tensor, start: Tensor) -> tuple[Tensor, int, bool]:
    """Block-coordinate ascent from `start`: (frames, sweeps, whether the relative gain became negligible)."""
    turn, value = start.clone(), float(_objective(cross, table, start))
    for sweep in range(1, SWEEPS + 1):
        gain = torch.zeros((), dtype=turn.dtype, device=turn.device)
        for i in range(len(table)):
            pull = _pull(cross, table, turn, i)
            best = _polar(pull)
            gain += ((best - turn[i]) * pull).sum()
            turn[i] = best
        value += float(gain)
        if float(gain) <= RELATIVE_GAIN * value:
            return turn, sweep, True
    return turn, SWEEPS, False


def _objective(cross: Tensor, table: Tensor, turn: Tensor) -> Float64[Tensor, ""]:
    """Σ_{i<j} tr(Q_iᵀ C_ij Q_j): every pair is pulled at from both ends."""
    pulls = torch.stack([_pull(cross, table, turn, i) for i in range(len(table))])
    return (turn * pulls).sum() / 2


def _pull(cross: Tensor, table: Tensor, turn: Tensor, i: int) -> Float64[Tensor, "d d"]:
    """Σ_{j≠i} C_ij Q_j: where the others want the frame of i."""
    return torch.einsum("jab,jbc->ac", row(cross, table, i), turn[_others(i, len(table))])


def _polar(M: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(M)
    return U @ Vh


def _others(i: int, members: int) -> list[int]:
    return [*range(i), *range(i + 1, members)]


def _by_member(left: Tensor, right: Tensor, table: Int[Tensor, "members members"]) -> Tensor:
    """What a member has as the left, and the last member as the right, of a pair [members …]."""
    return torch.cat([left[table[:-1, -1]], right[table[-1:, 0]]])


def _member_means(
    moments: PairMoments, table: Int[Tensor, "members members"]
) -> Float64[Tensor, "members d"]:
    """The members' means; refuses pairs that were not measured on the same tokens."""
    mean = _by_member(moments.mean_x, moments.mean_y, table)
    i, j = torch.combinations(torch.arange(len(table)), 2).unbind(1)
    there = moments[table[i, j]]
    apart = torch.stack([there.mean_x - mean[i], there.mean_y - mean[j]]).square().sum(-1)
    spread = torch.stack([there.spread_x.sum(-1), there.spread_y.sum(-1)]) / moments.n.min().clamp(min=1)
    if bool((moments.n != moments.n[0]).any()) or not bool((apart <= SAME_MEAN_WITHIN**2 * spread).all()):
        raise ValueError("the pairs disagree on n or the mean of a member: they are not of the same tokens")
    return mean
