"""Is an orthogonal matrix a uniformly random one? Haar draws, and the statistics that see departures.

Haar is what rotation-invariant initialisation and an equivariant optimiser would leave between two members:
the trivial hypothesis, which the science departs from. The laws are in `haar_laws`, the null that repeats the
estimation in `haar_refit`. All in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstwo
from torch import Tensor

from polymorph.alignment.rotation import eigenvalue_angles, trace

Tail = Literal["upper", "two_sided"]
PAIRS_OF_POWERS = ((1, 1), (1, 2), (2, 2), (1, 4), (2, 4), (2, 5), (4, 4), (4, 5), (5, 5))  # sums 2, 3, …, 10


def haar(
    d: int, n: int, generator: torch.Generator, determinant: int | None = None
) -> Float64[Tensor, "n d d"]:
    """Uniform draws on O(d), or on its half of the given determinant, +1 or −1.

    QR of a Gaussian matrix, unique once diag(R) > 0, and then Q is Haar (Mezzadri 2007). Reversing a column
    maps one half onto the other and keeps the measure.
    """
    if d < 1 or determinant not in (None, 1, -1):
        raise ValueError(f"Haar draws need d ≥ 1 and a determinant of 1 or −1, got {d} and {determinant}")
    gaussian = torch.randn(n, d, d, generator=generator, dtype=torch.float64, device=generator.device)
    Q, upper = torch.linalg.qr(gaussian)
    R = Q * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    if determinant is not None:
        R[..., 0] *= (torch.linalg.slogdet(R).sign * determinant).unsqueeze(-1)
    return R


def power_traces(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """Σ_{k≤10} (tr Rᵏ − [k even])²/k [*batch]: χ²₁₀ under Haar for d large against 10.

    The tr Rᵏ tend to independent N([k even], k) (Diaconis and Shahshahani 1994). From R, R², R⁴, R⁵ alone:
    tr R^{a+b} = Σ_ij (Rᵃ)_ij (Rᵇ)_ji.
    """
    R2 = R @ R
    R4 = R2 @ R2
    powers = {1: R, 2: R2, 4: R4, 5: R4 @ R}
    higher = [torch.einsum("...ij,...ji->...", powers[a], powers[b]) for a, b in PAIRS_OF_POWERS]
    traces = torch.stack([trace(R), *higher], dim=-1)
    k = torch.arange(1, 11, dtype=R.dtype, device=R.device)
    return ((traces - (k % 2 == 0).to(R.dtype)).square() / k).sum(-1)


def signed_permutation_overlap(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """max_σ Σ_i |R_iσ(i)| [*batch], at most d, which signed permutations alone reach.

    ‖R − nearest signed permutation‖_F = √(2d − 2·overlap).
    """
    return _best_assignment(R.abs())


def permutation_distance(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """‖R − nearest permutation‖_F = √(2d − 2 max_σ Σ_i R_iσ(i)) [*batch]: without signs, as in the paper."""
    return (2 * R.shape[-1] - 2 * _best_assignment(R)).clamp(min=0).sqrt()


def largest_entry(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """max |R_ij| [*batch]: 1 where an axis is mapped onto an axis."""
    return R.abs().amax((-2, -1))


def fourth_moment(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """κ₄ = (d + 2)/(3d) Σ R⁴_ij [*batch]: mean 1 under Haar, because E R⁴_ij = 3/(d(d + 2)); at most (d + 2)/3."""
    d = R.shape[-1]
    return (d + 2) / (3 * d) * R.pow(4).sum((-2, -1))


def eigenangle_ks(R: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """Largest distance [*batch] of the empirical law of the eigenvalue angles from the uniform on (−π, π]."""
    return ks_from_uniform(eigenvalue_angles(R))


def ks_from_uniform(angles: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Largest distance [*batch] of the empirical law of ascending angles from the uniform on (−π, π]."""
    n = angles.shape[-1]
    uniform = angles / (2 * torch.pi) + 0.5
    step = torch.arange(n + 1, dtype=angles.dtype, device=angles.device) / n
    return torch.maximum(step[1:] - uniform, uniform - step[:-1]).amax(-1)


@dataclass(frozen=True)
class Statistic:
    """A number [*batch] of orthogonal matrices [*batch d d], and the side on which departures from Haar lie.

    `by_eigenvalues` marks the slow ones: 0.3 s a matrix at d = 512, fifty times the others.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    tail: Tail
    sees: str
    by_eigenvalues: bool = False


_ALL = (
    Statistic("trace", trace, "two_sided", "pinned subspaces"),
    Statistic("power_traces", power_traces, "upper", "pinned subspaces; the low-frequency spectrum"),
    Statistic("signed_permutation_overlap", signed_permutation_overlap, "upper", "a privileged basis"),
    Statistic("largest_entry", largest_entry, "upper", "privileged axes"),
    Statistic("fourth_moment", fourth_moment, "two_sided", "entries that are not Gaussian"),
    Statistic("permutation_distance", permutation_distance, "two_sided", "a privileged basis without signs"),
    Statistic("eigenangle_ks", eigenangle_ks, "upper", "the spectrum, weakly", by_eigenvalues=True),
)
STATISTICS: dict[str, Statistic] = {statistic.name: statistic for statistic in _ALL}
WITHOUT_EIGENVALUES = tuple(name for name, statistic in STATISTICS.items() if not statistic.by_eigenvalues)
REGISTERED = ("power_traces", "signed_permutation_overlap")
"""The pair of tests that decides: one is blind to privileged axes, the other to a pinned subspace."""


def statistic_values(
    R: Float[Tensor, "*batch d d"], names: Sequence[str] = WITHOUT_EIGENVALUES
) -> dict[str, Tensor]:
    """The named statistics of orthogonal matrices, each [*batch]."""
    return {name: STATISTICS[name].function(R) for name in names}


def paper_ks(R: Float64[Tensor, "*batch d d"]) -> Float64[Tensor, "*batch"]:
    """The paper's p-value [*batch]: Kolmogorov's law for d independent angles, applied to `eigenangle_ks`.

    Not calibrated. Haar eigenvalues repel each other, so their empirical law is far closer to the uniform than
    that of independent angles and p is near 1: the size of the test is 0 (`paper_ks_size`), and p ≈ 1 is no
    evidence for Haar. `eigenangle_ks` against its own law is the calibrated test.
    """
    distance = eigenangle_ks(R)
    p = torch.as_tensor(kstwo.sf(distance.cpu().numpy(), R.shape[-1]), dtype=torch.float64)
    return p.to(R.device)


def paper_ks_size(d: int, n: int, seed: int, level: float = 0.05) -> float:
    """The share of n Haar draws on O(d) that `paper_ks` rejects at a level that it should equal."""
    generator = torch.Generator().manual_seed(seed)
    rejected = sum(float(paper_ks(haar(d, 1, generator)) <= level) for _ in range(n))
    return rejected / n


def _best_assignment(scores: Tensor) -> Tensor:
    """max_σ Σ_i scores_iσ(i) [*batch] of [*batch d d], exactly."""
    matrices = scores.reshape(-1, *scores.shape[-2:]).cpu().numpy()
    sums = [float(matrix[linear_sum_assignment(matrix, maximize=True)].sum()) for matrix in matrices]
    return torch.tensor(sums, dtype=scores.dtype, device=scores.device).reshape(scores.shape[:-2])
