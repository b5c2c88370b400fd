"""How large the residual stream's own axes are, and what is left of it without some of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polymorph.alignment.moments import PairMoments
from polymorph.models.activations import Coordinates

MASSIVE = 10.0
"""RMS, in medians over axes, from which on an axis is massive: it then weighs as much as a hundred ordinary ones, which
is a sixth of all squares at d = 512, while axes that merely differ stay within a factor of 2 or 3."""


@dataclass(frozen=True)
class Axes:
    """The stream's own axes for one member [*batch axes].

    Activations that are read in other coordinates are turned back: what is then seen are the axes of the stream
    without its mean over dimensions, and a massive axis, of which that mean has one part in d, raises all others by
    as much.
    """

    times: Float[Tensor, "*batch axes"]
    """RMS over tokens, mean included, in medians over the axes that are not always 0."""
    share: Float[Tensor, "*batch axes"]
    """Of the trace of the covariance."""

    @classmethod
    def of(cls, moments: PairMoments, coordinates: Coordinates | None) -> "Axes":
        """Those of x."""
        mean, spread = moments.mean_x, moments.xx.diagonal(dim1=-2, dim2=-1)
        if coordinates is not None:
            Q = coordinates.to(moments.xx)
            mean, spread = mean @ Q.mT, ((Q @ moments.xx) * Q).sum(-1)
        variance = spread.clamp(min=0) / moments.n[..., None]
        rms = (variance + mean.square()).sqrt()
        median = torch.where(rms > 0, rms, torch.nan).nanquantile(0.5, dim=-1, keepdim=True)
        return cls(rms / median, variance / variance.sum(-1, keepdim=True))

    @property
    def massive(self) -> Bool[Tensor, "*batch axes"]:
        return self.times >= MASSIVE


def without(axes: Int[Tensor, "some"], d: int, coordinates: Coordinates | None) -> Float[Tensor, "d k"]:
    """Orthonormal columns, in the coordinates of the activations, of what is orthogonal to these axes."""
    own = torch.eye(d, dtype=torch.float64) if coordinates is None else coordinates.double().cpu()
    return torch.linalg.qr(own[axes].mT, mode="complete").Q[:, len(axes) :]
