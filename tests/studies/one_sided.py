"""Members whose SAEs are known, and need the pairing: latent dimensions that never change sign."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from sae_lens import StandardSAE, StandardSAEConfig
from torch import Tensor

from polymorph.evidence.planted import SITE, Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.models.activations import Activations, Split
from polymorph.saes.trained import TrainedSAE

CONFIG = PlantedConfig(d=16, members=3, noise=0.0, documents=64, tokens=16)
N = CONFIG.documents * CONFIG.tokens


def given(W_enc: Tensor, W_dec: Tensor, b_dec: Tensor, **about: Any) -> TrainedSAE:
    sae = StandardSAE(StandardSAEConfig(d_in=W_enc.shape[0], d_sae=W_enc.shape[1])).eval()
    weights = {"W_enc": W_enc, "W_dec": W_dec, "b_dec": b_dec, "b_enc": torch.zeros(W_enc.shape[1])}
    sae.load_state_dict({name: values.float() for name, values in weights.items()})
    return TrainedSAE(sae, **{"family": "standard", **about})


@dataclass(frozen=True)
class OneSided:
    """The members of a plant, but with latent dimensions that are mostly 0 and never below.

    The planted signal is Gaussian, and turning any of its eigenvectors round leaves a Gaussian as it is: there
    no SAE can need the pairing. Here the signs of the eigenvectors matter.
    """

    kind: str = "rotated"
    sites: Sequence[str] = (SITE,)
    documents: Mapping[Split, int] = field(
        default_factory=lambda: {"fit": CONFIG.documents, "eval": CONFIG.documents}
    )

    @cached_property
    def plant(self) -> Planted:
        return Planted(self.kind, CONFIG)

    @cached_property
    def mixing(self) -> Tensor:
        """From latent dimensions to members [members d d]."""
        return self.plant.truth.spectrum[:, None] * self.plant.truth.weights

    def tokens(self, split: Split) -> Tensor:
        generator = torch.Generator().manual_seed(5 + (split == "eval"))
        members = CONFIG.members if self.plant.truth.own.any() else 1
        z = torch.empty(members, N, CONFIG.d, dtype=torch.float64).exponential_(generator=generator)
        fires = torch.rand(z.shape, generator=generator) < 0.3
        return (z * fires) @ self.mixing + self.plant.truth.means[:, None]

    def chunks(self, split: Split) -> Iterator[Activations]:
        document = torch.arange(CONFIG.documents).repeat_interleave(CONFIG.tokens)
        position = torch.arange(CONFIG.tokens).repeat(CONFIG.documents)
        x = self.tokens(split)
        for some in torch.arange(N).split(20 * CONFIG.tokens):
            yield Activations({SITE: x[:, some]}, document[some], position[some])

    def sae(self, member: int, **about: Any) -> TrainedSAE:
        """The latent dimensions of a member as features: perfect on what they can be, and on nothing else."""
        own, mean = self.mixing[member], self.plant.truth.means[member]
        return given(torch.linalg.inv(own), own, mean, **about)
