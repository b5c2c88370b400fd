"""The Lightning module of SAEs in training: wiring, no mathematics."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from polymorph.saes.trainers import Trainer

Measured = dict[str, Tensor]
Log = Callable[[int, Measured], None]


class SAEModule(L.LightningModule):
    """SAEs in step on one stream. `step` counts the updates made; every `log_every` of them are handed to `log`."""

    def __init__(
        self,
        saes: Trainer,
        batch: Callable[[int], Tensor],
        steps: int,
        log_every: int,
        log: Log,
        step: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # the trainer updates its stacks one after another
        self.saes, self.batch, self.steps = saes, batch, steps
        self.log_every, self.write = log_every, log
        self.step = step
        self.latest: Measured = {}

    def train_dataloader(self) -> "StepActivations":
        return StepActivations(self.batch, self.step, self.steps)

    def transfer_batch_to_device(self, batch: Tensor, device: torch.device, dataloader_idx: int) -> Tensor:
        return batch  # it was made there

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        measured = self.saes.step(batch)
        self.step += 1
        if self.step % self.log_every == 0 or self.step == self.steps:
            with torch.no_grad():
                seen = self.saes.scaled(batch)  # as the losses are
                spread = (seen - seen.mean(1, keepdim=True)).square().sum(-1).mean(-1)
                measured["explained_variance"] = 1 - measured["mse_loss"] / spread
            self.latest = measured
            self.write(self.step, measured)

    def configure_optimizers(self) -> None:
        return None  # theirs are their own


class StepActivations:
    """The batches of steps `first` … steps − 1, each computed when it is asked for."""

    def __init__(self, batch: Callable[[int], Tensor], first: int, steps: int) -> None:
        self.batch, self.of = batch, range(first, steps)

    def __len__(self) -> int:
        return len(self.of)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.batch, self.of)


def progress_text(measured: Measured) -> dict[str, str]:
    """Means over SAEs, for a progress bar."""
    shown: Sequence[str] = ("loss", "explained_variance", "l0")
    return {name: f"{float(measured[name].mean()):.3f}" for name in shown if name in measured}


def make_trainer(callbacks: list[L.Callback], **own: Any) -> L.Trainer:
    """Lightning's trainer for one pass over the steps, with nothing of its own on disk or screen."""
    return L.Trainer(
        max_epochs=1,  # it counts the steps of its own optimisers alone, and has none
        devices=1,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_model_summary=False,
        **own,
    )
