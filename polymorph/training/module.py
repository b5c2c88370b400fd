"""The Lightning module of a stack of members: wiring, no mathematics."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from polymorph.tasks.task import Inputs, Task
from polymorph.training.clipping import clip_members
from polymorph.training.config import OptimizerConfig, TrainerConfig
from polymorph.training.loss import head_accuracies, head_losses, total
from polymorph.training.member_steps import Losses, MemberSteps
from polymorph.training.numerics import StepMode, length_groups
from polymorph.training.schedule import learning_rate
from polymorph.training.stack import Stack


class StackModule(L.LightningModule):
    """S members of one architecture on one task. `step` counts the updates made, across resumes."""

    def __init__(
        self,
        stack: Stack,
        seeds: list[int],
        task: Task,
        optimizer: OptimizerConfig,
        trainer: TrainerConfig,
        start: int = 0,
        mode: StepMode = StepMode(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__()
        self.stack, self.seeds, self.task = stack, seeds, task
        self.optimizer_config, self.trainer_config = optimizer, trainer
        self.step = start
        self.latest: dict[str, Tensor] = {}
        self.mode = mode
        together = mode.compiled and mode.layout != "flat"
        self._call = torch.compile(stack, dynamic=False, fullgraph=True) if together else stack
        in_turn = mode.layout == "flat"
        self._flat = MemberSteps(stack, mode.precision == "bfloat16", mode.compiled) if in_turn else None

    @property
    def length_groups(self) -> int:
        return length_groups(self.trainer_config, self.device)

    def train_dataloader(self) -> "StepBatches":
        return StepBatches(
            self.batches, self.step, self.trainer_config.max_steps, self.trainer_config.steps_at_once
        )

    def batches(self, steps: Tensor) -> Any:
        """The training batches of all members at these steps, on this module's device."""
        seeds = torch.tensor(self.seeds, device=self.device)
        return self.task.batches(seeds, steps.to(self.device), self.trainer_config.batch_size)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # it was made there

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses, labels = self.losses(batch)
        if (self.step + 1) % self.trainer_config.log_every == 0:
            self.latest = _measured(losses, head_accuracies(losses.logits, labels))
        return losses.total.sum()  # a sum: no member's gradient depends on how many there are

    def losses(self, batch: Any) -> tuple[Losses, Mapping[str, Tensor]]:
        """Losses and logits of a batch, and the labels in the layout of the logits."""
        if self._flat is not None and (flat := self.task.flat_inputs(batch)) is not None:
            return self._flat(flat), flat.labels
        inputs = self.inputs(batch)
        logits = self.logits(inputs)
        heads = head_losses(logits, inputs.labels)
        return Losses(total(heads), heads, logits), inputs.labels

    def warm_up(self, device: torch.device) -> None:
        """Compute the gradients of one batch and forget them, so that what is compiled is compiled now.

        It is called as a step is, on the device and under autocast: elsewhere another function would be compiled.
        """
        self.to(device)
        bfloat16 = self.mode.precision == "bfloat16"
        with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = self.losses(self._usual_batch())[0].total.sum()
        loss.backward()
        self.zero_grad(set_to_none=True)

    def _usual_batch(self) -> Any:
        """The first of some batches whose sequences fit end to end, where that is how they are laid out."""
        together = self.batches(torch.arange(self.trainer_config.steps_at_once))
        several = [together[i] for i in range(self.trainer_config.steps_at_once)]
        if self.mode.layout != "flat":
            return several[0]
        return next((batch for batch in several if self.task.flat_inputs(batch) is not None), several[0])

    def inputs(self, batch: Any) -> Inputs:
        """A batch of the task, laid out for the stack."""
        padded = self.mode.layout == "padded"
        return self.task.inputs(batch, 1 if padded else self.length_groups, padded)

    def logits(self, inputs: Inputs) -> dict[str, Tensor]:
        """Logits of every member by head, [members, row, pos, classes]."""
        logits: dict[str, Tensor] = self._call(*inputs.arguments, **inputs.keywords)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self.optimizer_config
        trainable = [p for p in self.stack.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            trainable, config.lr, (config.beta1, config.beta2), weight_decay=config.weight_decay, fused=True
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        rate = learning_rate(self.step, self.optimizer_config, self.trainer_config.max_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        norms = clip_members(self.stack.parameters(), self.optimizer_config.gradient_clip, self.stack.size)
        if (self.step + 1) % self.trainer_config.log_every == 0:
            self.latest["grad_norm"] = norms

    def optimizer_step(self, *arguments: Any, **keywords: Any) -> None:
        super().optimizer_step(*arguments, **keywords)
        self.step += 1


class StepBatches:
    """The batches of steps start … stop − 1, several generated at a time."""

    def __init__(self, batches: Callable[[Tensor], Any], start: int, stop: int, at_once: int) -> None:
        self.batches, self.start, self.stop, self.at_once = batches, start, stop, at_once

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Any]:
        for first in range(self.start, self.stop, self.at_once):
            steps = torch.arange(first, min(first + self.at_once, self.stop))
            together = self.batches(steps)
            yield from (together[i] for i in range(len(steps)))


def _measured(losses: Losses, accuracies: dict[str, Tensor]) -> dict[str, Tensor]:
    by_head = {f"loss/{head}": loss.detach() for head, loss in losses.heads.items()}
    return {"loss": losses.total.detach(), **by_head, **{f"accuracy/{h}": a for h, a in accuracies.items()}}
