"""One number a pair and site, its control beside it: the same with an R that was fitted to permuted tokens."""

from collections.abc import Iterator

import torch
from torch import Tensor

from polymorph import FITS
from polymorph.alignment.jackknife import jackknife_interval
from polymorph.alignment.support import filled
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """`cosine` of every pair, with its jackknifed interval over eval blocks."""
    for site in evidence.sites:
        moments = evidence.at(site)
        for role, fit in (("estimate", moments.fit), ("control", moments.fit_tokens_permuted)):
            R = FITS["orthogonal"](fit.total()).weight
            blocks = filled(moments.eval)
            whole, rest = moments.eval.total(), blocks.leave_one_out()
            value = cosine(R, whole.xx, whole.yy)
            bounds = jackknife_interval(value, cosine(R, rest.xx, rest.yy))
            yield from evidence.pair_rows(
                "first_direction", site, "eval", "cosine", value, bounds, map="orthogonal", role=role
            )


def cosine(R: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    """Of the first principal directions of both sides, the source's turned by R."""
    first, second = (torch.linalg.eigh(covariance).eigenvectors[..., -1] for covariance in (xx, yy))
    return (torch.einsum("...i,...ij->...j", first, R) * second).sum(-1).abs()
