"""The training loss of one SAE in a form that can be stacked: SAELens' own, with branch-free auxiliary terms."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from sae_lens import StandardTrainingSAE, TopKTrainingSAE, TrainingSAE
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.topk_sae import act_times_W_dec
from torch import Tensor, nn

STACKABLE = ("standard", "topk", "gated")
"""Architectures whose training runs under `torch.vmap`; of the others SAELens' own trainer is called in a loop."""
Stepped = tuple[Tensor, dict[str, Tensor], Tensor]
"""The loss, its components, and on how many tokens each feature fired, [d_sae]."""


class TrainingLoss(nn.Module):
    """SAELens' `training_forward_pass`, as the forward pass of a module around the SAE."""

    def __init__(self, sae: TrainingSAE[Any]) -> None:
        super().__init__()
        self.sae = sae

    def forward(
        self,
        x: Float[Tensor, "n d"],
        dead: Bool[Tensor, " d_sae"] | None = None,
        *,
        coefficients: Mapping[str, float],
    ) -> Stepped:
        """`dead` marks the features that have not fired for long; None is that there are none."""
        if is_plain(self.sae):
            return plain_loss(self.sae, x, coefficients["l1"])
        given = TrainStepInput(
            sae_in=x,
            coefficients=dict(coefficients),
            dead_neuron_mask=None,  # SAELens branches on it, which a stack cannot
            n_training_steps=0,
            is_logging_step=False,
        )
        out = self.sae.training_forward_pass(given)
        loss, losses = out.loss, dict(out.losses)
        if dead is not None and isinstance(self.sae, TopKTrainingSAE):
            revival = revival_loss(self.sae, x - out.sae_out, out.hidden_pre, dead)
            loss, losses["auxiliary_reconstruction_loss"] = loss + revival, revival
        return loss, losses, out.feature_acts.detach().sign().sum(0)


def is_plain(sae: TrainingSAE[Any]) -> bool:
    """Whether `plain_loss` is its loss: ReLU with L1, on activations as they are or scaled beforehand."""
    if type(sae) is not StandardTrainingSAE or sae.cfg.lp_norm != 1:
        return False
    return sae.cfg.normalize_activations not in ("layer_norm", "constant_norm_rescale")


def plain_loss(sae: StandardTrainingSAE, x: Float[Tensor, "n d"], l1: float) -> Stepped:
    """`training_forward_pass` of a standard SAE in as few passes over the features [n d_sae] as there can be.

    Features are not negative, so the mean L1 norm of the features weighted by the decoder's norms is a product of
    the features with those norms, whose gradient is the norms themselves. Biases are added inside the products.
    """
    centred = x - sae.b_dec if sae.cfg.apply_b_dec_to_input else x
    features = torch.addmm(sae.b_enc, centred, sae.W_enc).relu_()
    rebuilt = torch.addmm(sae.b_dec, features, sae.W_dec)
    mse_loss = (rebuilt - x).square().sum(-1).mean()
    l1_loss = l1 * (features @ sae.W_dec.norm(dim=1)).mean()
    fired = features.detach().sign().sum(0)
    return mse_loss + l1_loss, {"mse_loss": mse_loss, "l1_loss": l1_loss}, fired


def revival_loss(
    sae: TopKTrainingSAE, residual: Float[Tensor, "n d"], hidden_pre: Tensor, dead: Bool[Tensor, " d_sae"]
) -> Tensor:
    """What the strongest dead features leave of the residual: SAELens' `calculate_topk_aux_loss` without branches.

    There k = min(d/2, dead features). Here k is always d/2, and a feature that is alive, which a rank beyond the
    number of dead ones picks, counts nothing.
    """
    most = min(residual.shape[-1] // 2, hidden_pre.shape[-1])
    scale = (dead.sum() / (residual.shape[-1] // 2)).clamp(max=1.0)
    strongest = torch.where(dead, hidden_pre, -torch.inf).topk(most, sorted=False)
    values = torch.where(strongest.values.isfinite(), strongest.values, 0.0)
    features = torch.zeros_like(hidden_pre).scatter(-1, strongest.indices, values)
    again = act_times_W_dec(features, sae.W_dec, sae.cfg.rescale_acts_by_decoder_norm)
    error = (again - residual.detach()).square().sum(-1).mean()
    return sae.cfg.aux_loss_coefficient * scale * error
