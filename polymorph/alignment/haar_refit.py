"""Haar with the error of the estimate: a parametric bootstrap that repeats the fit of one pair.

Model: y = x R₀ + e, with R₀ Haar and e uncorrelated with x. The fit sees M = Σ xᵀy = C_xx R₀ + N, with
N = Σ_b Σ_{t∈b} x_tᵀ e_t, and returns the polar factor of M. Documents are independent and blocks are made of
whole documents, so N is a sum of independent matrices of mean 0, one per block: whatever the dependence of
tokens and dimensions inside a block, Σ_b g_b E_b with independent signs g_b has mean 0 and the covariance
Σ_b E_b ⊗ E_b, which estimates that of N (wild cluster bootstrap, Cameron, Gelbach and Miller 2008).

The residuals E_b are those of the fitted R̂, whose sum is not 0 (a scale that no rotation can follow stays in
it) and whose antisymmetric part the fit has removed. Each block therefore gives up its share s_b = n_b/n of
the sum: if block b has covariance s_b·Var N, then E Σ_b (E_b − s_b ΣE)² = (1 − Σ s_b²) Var N. The factor
1/√(1 − Σ s_b²), √(B/(B − 1)) for B equal blocks, makes the variance right.

Where x has little variance against e, R is not determined: there R* is all noise, and noise of no preferred
direction looks Haar, in the data as in the null. Nothing is rejected then and nothing was learnt: a caller must
refuse the verdict while the determined dimension is below d.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from polymorph.alignment.fit import orthogonal
from polymorph.alignment.haar import WITHOUT_EIGENVALUES, haar, statistic_values
from polymorph.alignment.haar_laws import chunk_sizes
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.rotation import determinant_sign


def refit_draws(blocks: PairMoments, draws: int, generator: torch.Generator) -> Float64[Tensor, "draws d d"]:
    """Estimates R* of Haar matrices with the determinant of R̂, with the noise of R̂; see the module.

    `blocks` are the fit moments of one pair, with the leading axis [blocks]. At d = 512 a draw takes about
    0.2 s and 2 MiB; `refit_values` keeps the statistics alone.
    """
    return torch.cat(list(_refits(blocks, draws, generator)))


def refit_values(
    blocks: PairMoments,
    draws: int,
    generator: torch.Generator,
    names: Sequence[str] = WITHOUT_EIGENVALUES,
) -> dict[str, Tensor]:
    """The named statistics of `refit_draws`, each [draws], in the memory of a few matrices."""
    chunks = [statistic_values(R, names) for R in _refits(blocks, draws, generator)]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in names}


def block_residuals(blocks: PairMoments, weight: Float64[Tensor, "d d"]) -> Float64[Tensor, "blocks d d"]:
    """E_b = Σ_{t∈b} (x_t − μ_x)ᵀ e_t with e = (y − μ_y) − (x − μ_x) W, about the means of all blocks together.

    Moments about the means of a block are moved by the outer products of their distance to the total's.
    """
    total = blocks.total()
    dx, dy = blocks.mean_x - total.mean_x, blocks.mean_y - total.mean_y
    xx = blocks.xx + torch.einsum("b,bi,bj->bij", blocks.n, dx, dx)
    xy = blocks.xy + torch.einsum("b,bi,bj->bij", blocks.n, dx, dy)
    return xy - xx @ weight


def _refits(
    blocks: PairMoments, draws: int, generator: torch.Generator
) -> Iterator[Float64[Tensor, "chunk d d"]]:
    if blocks.n.ndim != 1 or draws < 1:
        raise ValueError(
            f"a refit takes one pair [blocks] and a draw or more, got {blocks.n.ndim} axes, {draws}"
        )
    total = blocks.total()
    fitted = orthogonal(total).weight
    noise, d = _scaled_noise(blocks, fitted), fitted.shape[-1]
    determinant = int(determinant_sign(fitted))
    for n in chunk_sizes(d, draws):
        R0 = haar(d, n, generator, determinant).to(fitted.device)
        signs = torch.randint(2, (n, len(noise)), generator=generator, device=generator.device) * 2.0 - 1
        M = total.xx @ R0 + torch.einsum("nb,bij->nij", signs.to(noise), noise)
        U, _, Vh = torch.linalg.svd(M)
        yield U @ Vh


def _scaled_noise(blocks: PairMoments, fitted: Tensor) -> Float64[Tensor, "blocks d d"]:
    """The centred residuals of the blocks, scaled so that Σ_b g_b E_b has the variance of the fit's noise."""
    share = blocks.n / blocks.n.sum()
    kept = 1 - share.square().sum()
    if not bool(kept > 0):
        raise ValueError("a refit needs at least two blocks with documents: one has no noise to resample")
    residuals = block_residuals(blocks, fitted)
    return (residuals - share[:, None, None] * residuals.sum(0)) / kept.sqrt()
