"""SAEs of random weights that read planted members alike, for tests of what studies find of them."""

import torch
from sae_lens import StandardSAE, StandardSAEConfig

from polymorph.saes.trained import TrainedSAE, Variant

FEATURES = 40


def trained(
    weight: torch.Tensor,
    mean: torch.Tensor,
    generator: torch.Generator,
    *,
    dead: int = 0,
    variant: Variant = "distinct",
    features: int = FEATURES,
) -> TrainedSAE:
    """An SAE of a member x = z @ weight + mean, weight orthogonal: its features are functions of z alone.

    The same generator state gives the same functions, for any member. The last `dead` features never fire.
    """
    d = len(mean)
    with torch.random.fork_rng():
        sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=features))
    decoder, encoder = torch.randn(2, features, d, generator=generator, dtype=torch.float64)
    sae.W_dec.data = (decoder @ weight).float()
    sae.W_enc.data = (encoder @ weight).mT.contiguous().float()
    sae.b_dec.data = mean.float()
    sae.b_enc.data = torch.full((features,), -1.0)
    sae.b_enc.data[features - dead :] = -1e6
    return TrainedSAE(sae.eval().requires_grad_(False), "standard_x8", variant)


def permuted(trained: TrainedSAE, order: torch.Tensor) -> TrainedSAE:
    """The same SAE with its features in another order."""
    with torch.random.fork_rng():
        sae = StandardSAE(trained.sae.cfg)
    own = trained.sae
    sae.W_dec.data, sae.W_enc.data = own.W_dec[order].clone(), own.W_enc[:, order].clone()
    sae.b_enc.data, sae.b_dec.data = own.b_enc[order].clone(), own.b_dec.clone()
    return TrainedSAE(sae.eval().requires_grad_(False), trained.family, trained.variant)
