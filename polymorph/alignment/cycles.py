"""Do the maps of a cohort agree with each other? Round every triangle of members, on what the data determine.

If all members are one structure seen in different coordinates, then a to b to c and back to a is the identity.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from polymorph.alignment.moments import PairMoments

GATHER_NUMBERS = 2**22  # float64 numbers copied at a time when maps are lined up into triangles (32 MiB)
ORTHONORMAL_WITHIN = 1e-6  # largest entry of PᵀP − I taken for rounding


def pair_table(pairs: Sequence[tuple[int, int]]) -> Int[Tensor, "members members"]:
    """Where in `pairs` the pair of two members is, symmetric, −1 on the diagonal; the pairs must be complete."""
    members = 1 + max((max(pair) for pair in pairs), default=-1)
    every = set(combinations(range(members), 2))
    missing, foreign = sorted(every - set(pairs)), sorted(set(pairs) - every)
    if missing or foreign or len(pairs) != len(every) or members < 2:
        raise ValueError(
            f"a cohort needs every pair (i, j), i < j, of its {members} members exactly once: "
            f"{len(missing)} missing {missing[:5]}, {len(foreign)} that are none {foreign[:5]}, "
            f"{len(pairs) - len(set(pairs))} repeated"
        )
    table = torch.full((members, members), -1)
    for position, (i, j) in enumerate(pairs):
        table[i, j] = table[j, i] = position
    return table


def row(
    values: Float64[Tensor, "pairs d d"], table: Int[Tensor, "members members"], i: int
) -> Float64[Tensor, "others d d"]:
    """The matrices A_ij of member i with every other member j, in order; A_ji = A_ijᵀ is stored for i < j."""
    return torch.cat([values[table[i, :i]].mT, values[table[i, i + 1 :]]])


def relative_cross(
    moments: PairMoments, pairs: Sequence[tuple[int, int]]
) -> tuple[Int[Tensor, "members members"], Float64[Tensor, "pairs d d"]]:
    """The table of the pairs, and Ĉ_ij = C_ij / √(tr C_i tr C_j).

    Ĉ does not depend on the scale of a member. Its nuclear norm is at most 1 and is the cosine of the
    Procrustes angle.
    """
    table = pair_table(pairs)
    shape = tuple(moments.xy.shape)
    if len(shape) != 3 or shape[0] != len(pairs) or shape[1] != shape[2]:
        raise ValueError(f"cross moments are [pairs d d] with {len(pairs)} pairs, not {shape}: use total()")
    if not bool(torch.isfinite(moments.xy).all()):
        raise ValueError("the moments have values that are not finite")
    scale = (moments.spread_x.sum(-1) * moments.spread_y.sum(-1)).sqrt()
    if not bool((scale > 0).all()):
        raise ValueError("a member has no variance: its frame is not defined")
    return table, moments.xy / scale[:, None, None]


def support_basis(
    moments: PairMoments, pairs: Sequence[tuple[int, int]], r: int
) -> Float64[Tensor, "members d r"]:
    """Orthonormal P_i [d r] of every member: the r directions that the other members determine best.

    They are the top eigenvectors of Σ_j Ĉ_ij Ĉ_ijᵀ. Variance that i shares with nobody enters with its sampling
    error alone, which falls as 1/n, unlike in the principal components. r is not chosen here.
    """
    table, cross = relative_cross(moments, pairs)
    if not 1 <= r <= cross.shape[-1]:
        raise ValueError(f"a support has 1 to {cross.shape[-1]} dimensions, not {r}")
    rows = (row(cross, table, i) for i in range(len(table)))
    shared = torch.stack([torch.einsum("jab,jcb->ac", ties, ties) for ties in rows])
    return torch.linalg.eigh(shared).eigenvectors[..., -r:].flip(-1)


def triangles(members: int) -> Int[Tensor, "triangles 3"]:
    """All i < j < k, in lexicographic order: m(m − 1)(m − 2)/6 of them, 4960 for 32 members."""
    if members < 3:
        raise ValueError(f"a cycle needs at least three members, not {members}")
    return torch.combinations(torch.arange(members), 3)


def cycle_coherence(
    R: Float64[Tensor, "pairs d d"],
    pairs: Sequence[tuple[int, int]],
    supports: Float64[Tensor, "members d r"],
) -> Float64[Tensor, "triangles"]:
    """tr(P_iᵀ R_ij R_jk R_ki P_i)/r for every one of `triangles`, R_ki = R_ikᵀ: 1 if the maps agree on P_i.

    Law for independent Haar maps: the product H is Haar, E H_ab H_cd = δ_ac δ_bd / d, hence tr(P_iᵀ H P_i) =
    ⟨P_i P_iᵀ, H⟩ has mean 0 and variance ‖P_i P_iᵀ‖²/d = r/d, and the coherence is 0 ± 1/√(r d), in the whole
    space 0 ± 1/d. The sign of one map flips its triangles alone, so triangles are uncorrelated and the mean of
    T of them is 0 ± 1/√(r d T).

    Maps *fitted* to unrelated members are not quite independent: R_ij, R_jk and R_ki have seen the same
    tokens. To first order R_ij = α C_ij, with C_ij nearly Gaussian, ‖C_ij‖_* = 8/(3π) d √(n d), ‖C_ij‖² =
    n d², α = 8/(3π)/√(n d); and E tr(C_ij C_jk C_ki) = n d³ for n white independent tokens. So the coherence
    of unrelated members is about (8/(3π))³ √(d/n) = 0.61 √(d/n), positive, and more where documents make n
    smaller than it looks. A shuffle that moves the left member of each pair destroys this; the right null
    shuffles each member once, alike in all its pairs.
    """
    table = pair_table(pairs)
    i, j, k = triangles(len(table)).unbind(1)
    _require_supports(R, len(pairs), supports, len(table))
    r, d = supports.shape[2], supports.shape[1]
    first = torch.tensor([pair[0] for pair in pairs])
    seen = supports[first].mT @ R
    at_once = max(1, GATHER_NUMBERS // d**2)
    edges = (table[a, b].split(at_once) for a, b in ((i, j), (j, k), (i, k)))
    parts = [
        torch.einsum("tra,tra->t", seen[ij] @ R[jk], seen[ik]) for ij, jk, ik in zip(*edges, strict=True)
    ]
    return torch.cat(parts) / r


def _require_supports(R: Tensor, pairs: int, supports: Tensor, members: int) -> None:
    if len(R) != pairs or len(supports) != members:
        raise ValueError(
            f"{pairs} pairs of {members} members do not fit {len(R)} maps and {len(supports)} supports"
        )
    gram = supports.mT @ supports
    error = float((gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)).abs().max())
    if not error <= ORTHONORMAL_WITHIN:
        raise ValueError(f"the columns of a support are orthonormal; PᵀP differs from I by {error:.3g}")
