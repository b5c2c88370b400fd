"""SAELens' own trainer for each SAE, one after another: for every architecture that cannot be stacked."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sae_lens import TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from polymorph.saes.config import SAEConfig
from polymorph.saes.scaling import estimate, fold, scaled


class LoopedTrainer:
    """SAELens' trainers in step. With `precision: bfloat16` they run under SAELens' `autocast`."""

    compiled = False

    def __init__(self, saes: Sequence[TrainingSAE[Any]], config: SAEConfig, device: torch.device) -> None:
        own = config.trainer(str(device))
        self.config = config
        self.trainers = [SAETrainer(own, sae.to(device), iter(())) for sae in saes]

    def prepare(self, batches: Iterator[Tensor]) -> None:
        estimate([t.activation_scaler for t in self.trainers], self.config, batches)

    def step(self, x: Tensor) -> dict[str, Tensor]:
        measured = [self._step(trainer, own) for trainer, own in zip(self.trainers, x, strict=True)]
        return {name: torch.stack([own[name] for own in measured]) for name in measured[0]}

    def scaled(self, x: Tensor) -> Tensor:
        return scaled([trainer.activation_scaler for trainer in self.trainers], x)

    def _step(self, trainer: SAETrainer[Any, Any], x: Tensor) -> dict[str, Tensor]:
        trainer.maybe_reset_sparsity()
        out = trainer.step(x)
        trainer.n_training_steps += 1
        acts = out.feature_acts.to_dense() if out.feature_acts.is_sparse else out.feature_acts
        if self.config.unit_norm_decoder:
            normalise(trainer.sae.W_dec)
        return {
            "loss": out.loss.detach().float(),
            **{name: loss.detach().float() for name, loss in out.losses.items()},
            "l0": (acts != 0).sum(-1).float().mean(),
            "live_fraction": 1 - trainer.dead_neurons.float().mean(),
        }

    def finish(self) -> list[TrainingSAE[Any]]:
        for trainer in self.trainers:
            trainer.set_final_sae_metadata()
            fold(trainer.sae, trainer.activation_scaler)
        return [trainer.sae.cpu().eval() for trainer in self.trainers]


@torch.no_grad()
def normalise(decoder: Tensor) -> None:
    """Scale the decoder's directions back to norm 1, in place."""
    decoder /= decoder.norm(dim=-1, keepdim=True)
