"""What SAEs are trained on: the activations of their members, or noise with their covariance."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.accumulator import pair_moments
from polymorph.alignment.pairings import chunk_generator
from polymorph.saes.places import Place

MOMENT_BATCHES = 4  # of the stream, for the covariance that noise takes over


class Stream(Protocol):
    """Activations of some members without end."""

    def batch(self, step: int) -> Mapping[str, Float[Tensor, "members n d"]]:
        """The batch of a step, by site; a function of the step."""
        ...


class Inputs:
    """The activations that every SAE is trained on, in the order of the places: [saes n d]."""

    def __init__(self, places: Sequence[Place], stream: Stream, seed: int) -> None:
        self.places, self.stream, self.seed = places, stream, seed
        self.members = sorted({(place.seed, place.step) for place in places})
        self._noise: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    def batch(self, step: int) -> Float[Tensor, "saes n d"]:
        values = self.stream.batch(step)
        return torch.stack([self._of(place, values, step) for place in self.places])

    def _of(self, place: Place, values: Mapping[str, Tensor], step: int) -> Tensor:
        member = self.members.index((place.seed, place.step))
        own = values[place.site][member]
        if place.variant != "unrelated":
            return own
        mean, root = self._law(member, place.site)
        # By the site's name, so that it does not matter which other sites are asked for.
        generator = chunk_generator(self.seed, step, place.seed, *place.site.encode())
        noise = torch.randn(own.shape, generator=generator, dtype=torch.float64).to(own.device)
        return (mean + noise @ root).to(own.dtype)

    def _law(self, member: int, site: str) -> tuple[Tensor, Tensor]:
        """Mean, and a root of the covariance, of a member's activations at a site."""
        if not self._noise:
            batches = [self.stream.batch(step) for step in range(MOMENT_BATCHES)]
            for place in self.places:
                if place.variant == "unrelated":
                    at = self.members.index((place.seed, place.step))
                    self._noise[at, place.site] = _law(torch.cat([own[place.site][at] for own in batches]))
        return self._noise[member, site]


def _law(x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    moments = pair_moments(x, x)
    values, vectors = torch.linalg.eigh(moments.xx / moments.n)
    return moments.mean_x, (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
