"""Maps and moments from which the pairing of the tokens is missing, and all else is kept."""

from dataclasses import replace

import torch
from torch import Tensor

from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.solvable import require


def covariance_only(moments: PairMoments, generator: torch.Generator) -> Map:
    """The orthogonal map between the eigenbases of xx and yy, in order of variance, with random signs.

    It carries a covariance onto one as like it as an isometry can, and knows nothing of which token goes with
    which: `xy` is not read. Each axis has two directions, and which of them is right only the pairing says.
    """
    require(moments)
    x, y = (torch.linalg.eigh(sums).eigenvectors for sums in (moments.xx, moments.yy))
    signs = 2 * torch.randint(2, x.shape[:-1], generator=generator, device=generator.device) - 1
    weight = (x * signs.to(x).unsqueeze(-2)) @ y.mT
    return Map("orthogonal", weight, moments.mean_x, moments.mean_y)


def gaussian_cross(moments: PairMoments, generator: torch.Generator) -> PairMoments:
    """The same moments, but xy as with a Gaussian target of covariance yy/n that is independent of x.

    For centred X and G with independent rows N(0, yy/n), XᵀG = Xᵀ Z (yy/n)^{1/2} with Z standard normal, and
    the columns of XᵀZ are independent N(0, XᵀX): xy = xx^{1/2} Z (yy/n)^{1/2} with Z [d_x d_y]. Centring G
    changes nothing, because XᵀG does not see its mean. The Gram of G is held at yy, its expectation, which is
    good for n well above d. For total moments: the means of blocks would still be paired.
    """
    require(moments, square=False)
    Z = torch.randn(moments.xy.shape, generator=generator, dtype=torch.float64, device=generator.device)
    half = _root(moments.yy / moments.n[..., None, None])
    return replace(moments, xy=_root(moments.xx) @ Z.to(half.device) @ half)


def _root(C: Tensor) -> Tensor:
    """The symmetric square root of a positive semidefinite matrix; eigenvalues below 0 are rounding."""
    values, vectors = torch.linalg.eigh(C)
    return (vectors * values.clamp(min=0).sqrt().unsqueeze(-2)) @ vectors.mT
