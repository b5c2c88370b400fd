"""Is an isometry possible? What no rotation can remove, before any map is fitted.

The residual of the best orthogonal map splits exactly, here on the eval split, into what the spectra alone
keep apart and what the pairing keeps apart:

    tr C_x + tr C_y − 2‖C_xy‖_* = Σ(√λ_x − √λ_y)² + 2[Σ√(λ_x λ_y) − ‖C_xy‖_*].

Intervals delete one block of documents at a time; sums of singular values are linearised at the whole (their
derivative is tr(Uᵀ δM V)). In `procrustes_angle` R comes from the fit split.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.collect import SiteMoments
from polymorph.alignment.fit import orthogonal
from polymorph.alignment.jackknife import jackknife_interval
from polymorph.alignment.moments import PairMoments, explained_variance_from_sums
from polymorph.alignment.support import block_sums, filled
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row

STUDY = "isometry"


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Variance ratio, spectral and relational distance, Procrustes angle, CKA and token norms of every pair."""
    for site in evidence.sites:
        moments = evidence.at(site)
        for backward, side in ((False, moments), (True, moments.swap())):
            for metric, (value, parts) in _spectra(side.eval).items():
                yield from _emit(evidence, site, metric, value, parts, backward=backward)
        yield from _relations(evidence, site, moments)
        yield from _norms(evidence, site, moments.fit.total())


def _relations(evidence: Evidence, site: str, moments: SiteMoments) -> Iterator[Row]:
    """What is the same both ways, with the control of documents permuted."""
    for fit, role in ((moments.fit, "estimate"), (moments.fit_documents_permuted, "control")):
        value, parts = _angle(fit.total(), moments.eval)
        yield from _emit(evidence, site, "procrustes_angle", value, parts, map="orthogonal", role=role)
    yield from _emit(evidence, site, "cka", *debiased_cka(moments.eval))


def _emit(
    evidence: Evidence, site: str, metric: str, value: Tensor, parts: Tensor, **about: Any
) -> Iterator[Row]:
    bounds = jackknife_interval(value, parts) if parts.shape[0] > 1 else None
    yield from evidence.pair_rows(STUDY, site, "eval", metric, value, bounds, **about)


def _spectra(blocks: PairMoments) -> dict[str, tuple[Tensor, Tensor]]:
    """Each metric [pairs] with its values without each block [blocks, pairs]; distances are shares of tr C_y."""
    whole = blocks.total()
    rest = filled(blocks).leave_one_out()
    Ex, Ey = (torch.linalg.eigh(side).eigenvectors for side in (whole.xx, whole.yy))
    U, _, Vh = torch.linalg.svd(whole.xy)

    def measured(moments: PairMoments) -> dict[str, Tensor]:
        a, b = (_along(E, C) for E, C in ((Ex, moments.xx), (Ey, moments.yy)))
        nuclear = torch.einsum("...ji,...jk,...ik->...", U, moments.xy, Vh)
        shared = (a * b).sqrt().sum(-1)
        total = b.sum(-1)
        return {
            "variance_ratio": a.sum(-1) / total,
            "spectral_distance": (a + b).sum(-1) / total - 2 * shared / total,
            "relational_distance": 2 * (shared - nuclear) / total,
        }

    values, parts = measured(whole), measured(rest)
    return {metric: (values[metric], parts[metric]) for metric in values}


def _along(E: Tensor, C: Tensor) -> Float[Tensor, "*batch d"]:
    """Variances along the columns of E: the eigenvalues where E are the eigenvectors of C."""
    return (E * (C @ E)).sum(-2).clamp(min=0)


def _angle(fit: PairMoments, blocks: PairMoments) -> tuple[Tensor, Tensor]:
    """arccos(tr(Rᵀ C_xy) / √(tr C_x tr C_y)) in radians: 0 for a rotated copy, π/2 for nothing in common."""
    R = orthogonal(fit).weight

    def measured(moments: PairMoments) -> Tensor:
        shared = torch.einsum("...ij,...ij->...", R, moments.xy)
        sizes = moments.spread_x.sum(-1) * moments.spread_y.sum(-1)
        return torch.arccos((shared / sizes.sqrt()).clamp(-1, 1))

    return measured(blocks.total()), measured(filled(blocks).leave_one_out())


def debiased_cka(blocks: PairMoments) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "left_out pairs"]]:
    """Linear CKA from products between different document blocks, and its values without each block.

    ‖C_xy‖² over all tokens also holds the squares of noise. ⟨C_xy of one block, C_xy of another⟩ has none,
    because blocks are independent: the block form of debiased HSIC (Song et al. 2012). With unrelated members it is
    about 0 and may be negative. NaN never: a member without variance is refused.
    """
    swapped = blocks.swap()
    own = (PairMoments(m.n, m.mean_x, m.mean_x, m.xx, m.xx, m.xx) for m in (blocks, swapped))
    xy, xx, yy = (_products(part) for part in (blocks, *own))
    whole = _ratio(*(_across(K) for K in (xy, xx, yy)))
    kept = range(xy.shape[0])
    parts = []
    for out in kept:
        rest = torch.tensor([b for b in kept if b != out])
        parts.append(_ratio(*(_across(K[rest][:, rest]) for K in (xy, xx, yy))))
    return whole, torch.stack(parts) if len(parts) > 2 else whole[None]


def _products(blocks: PairMoments) -> Float[Tensor, "blocks blocks pairs"]:
    parts = block_sums(blocks).flatten(-2)
    return torch.einsum("apd,bpd->abp", parts, parts)


def _across(products: Tensor) -> Tensor:
    return products.sum((0, 1)) - products.diagonal(dim1=0, dim2=1).sum(-1)


def _ratio(xy: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    if not bool((xx * yy > 0).all()):
        raise ValueError("CKA needs variance on both sides and at least two blocks of documents")
    return xy / (xx * yy).sqrt()


def _norms(evidence: Evidence, site: str, fit: PairMoments) -> Iterator[Row]:
    """Regression of ‖y − mean‖ on ‖x − mean‖ over the tokens kept: slope and R² of a line through both means.

    An isometry keeps every norm: slope 1 and R² 1. Described on the tokens themselves, without an interval.
    """
    kept = evidence.kept(site).values[site]
    slopes, scores = [], []
    for place, (i, j) in enumerate(evidence.index):
        x = (kept[i] - fit.mean_x[place]).norm(dim=-1)
        y = (kept[j] - fit.mean_y[place]).norm(dim=-1)
        dx, dy = x - x.mean(), y - y.mean()
        slope = (dx @ dy) / (dx @ dx)
        slopes.append(slope)
        scores.append(explained_variance_from_sums((dy - slope * dx).square().sum(), dy @ dy))
    tokens: dict[str, Any] = {
        "n_tokens": kept.shape[1],
        "n_documents": len(evidence.kept(site).document.unique()),
    }
    for metric, values in (("norm_slope", slopes), ("norm_r2", scores)):
        yield from evidence.pair_rows(STUDY, site, "fit", metric, torch.stack(values), **tokens)
