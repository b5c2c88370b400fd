"""Normalisations of activations that are estimated before training, and folded into the weights when it ends."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import TrainingSAE
from sae_lens.training.activation_scaler import ActivationScaler, ActivationWhitening
from torch import Tensor

from polymorph.saes.config import ESTIMATED, SAEConfig


def estimate(
    scalers: Sequence[ActivationScaler], config: SAEConfig, batches: Iterator[Float[Tensor, "saes n d"]]
) -> None:
    """SAELens' own estimates, from the same batches for all."""
    wanted = config.options.get("normalize_activations")
    if wanted not in ESTIMATED:
        return
    n = config.n_batches_for_norm_estimate
    kept = list(islice(batches, n))
    for index, scaler in enumerate(scalers):
        own = iter([batch[index] for batch in kept])
        estimate = (
            scaler.estimate_scaling_factor
            if wanted == "expected_average_only_in"
            else scaler.estimate_whitening
        )
        estimate(d_in=kept[0].shape[-1], data_provider=own, n_batches_for_norm_estimate=n)


def scaled(scalers: Sequence[ActivationScaler], x: Float[Tensor, "saes n d"]) -> Float[Tensor, "saes n d"]:
    """What the SAEs see of these activations."""
    if all(scaler.scaling_factor is None and scaler.whitening is None for scaler in scalers):
        return x
    return torch.stack([scaler(own) for scaler, own in zip(scalers, x, strict=True)])


def fold(sae: TrainingSAE[Any], scaler: ActivationScaler) -> None:
    """Change the weights so that the SAE takes activations as they are."""
    if scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if (whitening := scaler.whitening) is not None:
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)


FACTOR, WHITENING = "scaling/factor", ("mean", "matrix", "inverse_matrix")


def scaler_state(scaler: ActivationScaler) -> dict[str, Tensor]:
    """What was estimated, as tensors; none where nothing was."""
    state = {}
    if scaler.scaling_factor is not None:
        state[FACTOR] = torch.tensor(scaler.scaling_factor, dtype=torch.float64)
    if (whitening := scaler.whitening) is not None:
        state |= {f"scaling/{name}": getattr(whitening, name) for name in WHITENING}
    return state


def restore_scaler(scaler: ActivationScaler, state: Mapping[str, Tensor]) -> None:
    """Give the scaler what `scaler_state` took from one."""
    if FACTOR in state:
        scaler.scaling_factor = float(state[FACTOR])
    if "scaling/matrix" in state:
        scaler.whitening = ActivationWhitening(**{name: state[f"scaling/{name}"] for name in WHITENING})
