"""SAELens' own trainer for each SAE, one after another: for every architecture that cannot be stacked."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from sae_lens import TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from polymorph.saes.config import SAEConfig
from polymorph.saes.scaling import estimate, fold, restore_scaler, scaled, scaler_state

WEIGHT = "weight/"
COUNTED = ("act_freq_scores", "n_forward_passes_since_fired")


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

    def state(self) -> list[dict[str, Tensor]]:
        """What going on needs of each SAE; schedules are functions of the step."""
        return [_state(trainer) for trainer in self.trainers]

    def restore(self, states: Sequence[Mapping[str, Tensor]], step: int) -> None:
        """Make this fresh trainer the one that `state` was taken from after `step` updates."""
        for trainer, state in zip(self.trainers, states, strict=True):
            _restore(trainer, state, step)

    def finish(self) -> list[TrainingSAE[Any]]:
        for trainer in self.trainers:
            trainer.set_final_sae_metadata()
            fold(trainer.sae, trainer.activation_scaler)
        return [trainer.sae.cpu().eval() for trainer in self.trainers]


def _state(trainer: SAETrainer[Any, Any]) -> dict[str, Tensor]:
    state = {f"{WEIGHT}{name}": value for name, value in trainer.sae.state_dict().items()}
    for index, own in trainer.optimizer.state_dict()["state"].items():
        state |= {f"adam/{index}/{name}": value for name, value in own.items()}
    state |= {name: getattr(trainer, name) for name in COUNTED}
    return {
        **state,
        "n_frac_active_samples": torch.tensor(trainer.n_frac_active_samples),
        **scaler_state(trainer.activation_scaler),
    }


def _restore(trainer: SAETrainer[Any, Any], state: Mapping[str, Tensor], step: int) -> None:
    weights = {name: own for name, own in state.items() if name.startswith(WEIGHT)}
    trainer.sae.load_state_dict({name.removeprefix(WEIGHT): own for name, own in weights.items()})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, own in state.items():
        if name.startswith("adam/"):
            _, index, what = name.split("/")
            moments.setdefault(int(index), {})[what] = own
    groups = trainer.optimizer.state_dict()["param_groups"]
    trainer.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    for name in COUNTED:
        setattr(trainer, name, state[name].to(trainer.cfg.device))
    trainer.n_frac_active_samples = int(state["n_frac_active_samples"])
    trainer.n_training_steps = step
    trainer.n_training_samples = step * trainer.cfg.train_batch_size_samples
    restore_scaler(trainer.activation_scaler, state)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for _ in range(step):
            trainer.lr_scheduler.step()
            for coefficient in trainer.coefficient_schedulers.values():
                coefficient.step()


@torch.no_grad()
def normalise(decoder: Tensor) -> None:
    """Scale the decoder's directions back to norm 1, in place."""
    decoder /= decoder.norm(dim=-1, keepdim=True)
