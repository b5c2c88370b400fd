"""Which feature of one dictionary is which of another: cosines, the nearest, and the best one-to-one assignment."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

THRESHOLD = 0.5  # the paper's: a feature with a similarity above it is called matched


@dataclass(frozen=True)
class Matched:
    """The mean similarity of matched features, and the share of them above `THRESHOLD`."""

    mean: float
    share: float


def carried(
    directions: Float[Tensor, "features d"], weight: Float[Tensor, "d d_out"]
) -> Float64[Tensor, "features d_out"]:
    """Directions of one member as directions of another, through the weight of the map y = x @ weight.

    So decoder directions move. A direction w that reads x, as those of an encoder, reads y as w @ weight⁻ᵀ, which
    for an orthogonal weight is the same.
    """
    _check(directions, weight.shape[0])
    return directions.double() @ weight.to(directions.device).double()


def cosines(a: Float[Tensor, "f d"], b: Float[Tensor, "g d"]) -> Float64[Tensor, "f g"]:
    """The cosine of every direction of a with every one of b; 0 for a direction of length 0.

    A matrix of f·g float64 numbers: 32 MiB for 2048 features a side.
    """
    _check(a, b.shape[-1])
    return unit(a) @ unit(b).mT


def joint(decoder: Float[Tensor, "f d"], encoder: Float[Tensor, "f d"]) -> Float64[Tensor, "f 2*d"]:
    """Unit decoder and unit encoder direction of each feature side by side; their cosine is the mean of both."""
    if decoder.shape != encoder.shape:
        raise ValueError(
            f"decoder {tuple(decoder.shape)} and encoder {tuple(encoder.shape)} must be one [features, d]"
        )
    return torch.cat([unit(decoder), unit(encoder)], dim=-1)


def unit(directions: Float[Tensor, "f d"]) -> Float64[Tensor, "f d"]:
    """Directions of length 1; those of length 0 are left."""
    return F.normalize(directions.double(), dim=-1)


def nearest(similarity: Float[Tensor, "f g"]) -> Matched:
    """Each of the f features with the most similar of the g, which several may share."""
    _check_any(similarity)
    return _matched(similarity.max(dim=-1).values)


def assigned(similarity: Float[Tensor, "f g"]) -> Matched:
    """Features one to one, min(f, g) of them, so that their mean similarity is the greatest (Kuhn 1955)."""
    _check_any(similarity)
    rows, columns = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
    return _matched(similarity[rows, columns])


def random_directions(f: int, g: int, d: int, generator: torch.Generator) -> Float64[Tensor, "f g"]:
    """Cosines between two sets of independent, uniformly random directions in d dimensions: what chance matches."""
    a, b = (torch.randn(size, d, generator=generator, dtype=torch.float64) for size in (f, g))
    return cosines(a, b)


def _matched(similarity: Tensor) -> Matched:
    return Matched(float(similarity.mean()), float((similarity > THRESHOLD).double().mean()))


def _check(directions: Tensor, d: int) -> None:
    if directions.ndim != 2 or directions.shape[-1] != d:
        raise ValueError(f"directions {tuple(directions.shape)} where [features, {d}] are wanted")


def _check_any(similarity: Tensor) -> None:
    if similarity.ndim != 2 or similarity.numel() == 0:
        raise ValueError(f"similarities {tuple(similarity.shape)}: at least one feature a side")
