"""How much SAEs take on the disk."""

from collections.abc import Sequence

from polymorph.saes.config import SAEConfig
from polymorph.saes.places import chosen_sites

FLOAT = 4
KEYS = "sae.expansion, sae.sites or sae.at"
"""What makes them fewer, or smaller."""


def stored_bytes(config: SAEConfig, d: int) -> int:
    """The size of one in the store: encoder, decoder and both biases in float32."""
    features = config.expansion * d
    return FLOAT * (2 * d * features + features + d)


def bytes_ahead(config: SAEConfig, sites: Sequence[str], d: int, seeds: int, checkpoints: int) -> int:
    """The size of those that members will get that are not trained yet, each with so many checkpoints."""
    at = {"last": 1, "all": checkpoints}.get(config.at) if isinstance(config.at, str) else len(config.at)
    asked = seeds * len(chosen_sites(config, sites)) * len(config.variants) * (at or 1)
    return asked * stored_bytes(config, d)
