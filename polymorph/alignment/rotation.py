"""What an orthogonal matrix is like: how far it turns, whether it reflects, and by which angles."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

NORMAL_95 = 1.959964  # of the standard normal law 95 % lie below it in size
ORTHOGONAL_WITHIN = 1e-5  # largest entry of RᵀR − I taken for rounding: float32 at d = 512 stays below 1e-5


def frobenius_from_identity(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """‖R − I‖_F = √(2d − 2 tr R) [*batch]: 0 for the identity, at most 2√d."""
    return torch.linalg.matrix_norm(R - torch.eye(R.shape[-1], dtype=R.dtype, device=R.device))


def frobenius_haar_scale(d: int) -> float:
    """√(2d): the root mean square of ‖R − I‖_F under Haar on O(d) or SO(d), because E tr R = 0 (d ≥ 2)."""
    return math.sqrt(2 * d)


def frobenius_haar_band(d: int) -> tuple[float, float, float]:
    """The mean of ‖R − I‖_F under Haar, and the two ends between which 95 % lie, with tr R taken for N(0, 1).

    The first moments of tr R are those of N(0, 1) exactly; from d = 8 on the band holds to a few thousandths.
    """
    low, high = (math.sqrt(max(0.0, 2 * d - 2 * t)) for t in (NORMAL_95, -NORMAL_95))
    return math.sqrt(2 * d) * (1 - 1 / (8 * d**2)), low, high


def trace(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """tr R [*batch]; close to N(0, 1) under Haar."""
    return R.diagonal(dim1=-2, dim2=-1).sum(-1)


def determinant_sign(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """+1 for a rotation, −1 for a rotation with a reflection [*batch]."""
    return torch.linalg.slogdet(_orthogonal(R)).sign


def eigenvalue_angles(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch d"]:
    """Arguments of the eigenvalues, in radians, (−π, π], ascending [*batch d]; a real −1 has the angle π."""
    values = torch.linalg.eigvals(_orthogonal(R))
    angles = values.angle()
    return torch.where(angles <= -math.pi, -angles, angles).sort(dim=-1).values


def _orthogonal(R: Tensor) -> Tensor:
    error = float((R.mT @ R - torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)).abs().max())
    if not error <= ORTHOGONAL_WITHIN:
        raise ValueError(f"not an orthogonal matrix: RᵀR differs from the identity by {error:.3g}")
    return R
