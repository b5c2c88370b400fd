"""The training loss of one SAE in a form that can be stacked: SAELens' own, differentiated by autograd.

It serves the options for which `closed.py` has no gradients: another norm than L1, and normalisation by token.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from sae_lens import TrainingSAE
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor, nn


class TrainingLoss(nn.Module):
    """SAELens' `training_forward_pass`, as the forward pass of a module around the SAE."""

    def __init__(self, sae: TrainingSAE[Any]) -> None:
        super().__init__()
        self.sae = sae

    def forward(
        self, x: Float[Tensor, "n d"], *, coefficients: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss, its components, and on how many tokens each feature fired, [d_sae]."""
        given = TrainStepInput(
            sae_in=x,
            coefficients=dict(coefficients),
            dead_neuron_mask=None,  # SAELens branches on it, which a stack cannot
            n_training_steps=0,
            is_logging_step=False,
        )
        out = self.sae.training_forward_pass(given)
        return out.loss, dict(out.losses), out.feature_acts.detach().sign().sum(0)
