"""SAELens SAEs for training, made from our config and a seed of their own."""

from typing import Any

import numpy as np
import torch
from sae_lens import TrainingSAE
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata

from polymorph.saes.config import SAEConfig
from polymorph.saes.trained import Variant


def sae_seed(base: int, member: int, site: int, variant: Variant) -> int:
    """The initialisation seed of one SAE: its own by member and site (by its place in the model), or the shared one."""
    # Of one length all: NumPy fills a short key up with zeros, and [base] would be [base, 0, 0, 0].
    key = [base, 0, 0, 2] if variant in ("shared", "unrelated") else [base, member, site, variant == "again"]
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def training_sae(config: SAEConfig, d_in: int, seed: int, metadata: dict[str, Any]) -> TrainingSAE[Any]:
    """A SAE as it is before its first step: a function of the config and the seed, float32, on the CPU."""
    kind, config_kind = SAE_TRAINING_CLASS_REGISTRY[config.architecture]
    options = dict(config.options)
    if config.l1_per_dimension is not None:
        # Ours is Σ_d (x − x̂)² + λ Σ|f|; with the error averaged over d it is that, divided by d, with λ / d.
        options["l1_coefficient"] = config.l1_per_dimension * d_in
    own = config_kind(
        d_in=d_in, d_sae=config.expansion * d_in, metadata=SAEMetadata(**metadata, sae_seed=seed), **options
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators as well
        return kind(own)
