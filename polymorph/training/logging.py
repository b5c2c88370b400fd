"""Every member's numbers to its own log and its own loggers, whether it trains alone or stacked."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from torch import Tensor

from polymorph.progress import Bar, Progress
from polymorph.training.best import evaluated, has_finite_weights
from polymorph.training.checkpoint import Progress as MemberProgress
from polymorph.training.evaluation import evaluate, least_accuracy
from polymorph.training.module import StackModule


class Record(L.Callback):
    """Training metrics every `log_every` steps and evaluations every `eval_every`, and at the last step.

    An evaluation decides who has converged and which was the best, so this callback stands before the checkpoint.
    """

    def __init__(
        self,
        progress: Sequence[MemberProgress],
        loggers: Mapping[int, Logger],
        accuracy: float,
        max_steps: int,
    ) -> None:
        self.progress, self.loggers = progress, loggers
        self.accuracy, self.max_steps = accuracy, max_steps
        self._since = (0, time.perf_counter())

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, StackModule)
        self._since = (pl_module.step, time.perf_counter())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StackModule)
        config, step = pl_module.trainer_config, pl_module.step
        if step % config.log_every == 0:
            metrics = {f"train/{name}": value for name, value in pl_module.latest.items()}
            self._write("train", step, metrics, self._shared(trainer, pl_module))
        if step % config.eval_every == 0 or step == self.max_steps:
            metrics = evaluate(pl_module, config.eval_sequences)
            self._converge(step, least_accuracy(metrics))
            self._compare(pl_module, metrics)
            self._write("evaluation", step, {f"eval/{name}": value for name, value in metrics.items()}, {})

    def _shared(self, trainer: L.Trainer, module: StackModule) -> dict[str, float]:
        before, since = self._since
        now = time.perf_counter()
        self._since = (module.step, now)
        rate = (module.step - before) / max(now - since, 1e-9)
        return {"train/lr": trainer.optimizers[0].param_groups[0]["lr"], "train/steps_per_second": rate}

    def _converge(self, step: int, least: Tensor) -> None:
        for progress, value in zip(self.progress, least.tolist(), strict=True):
            if progress.converged_at is None and value >= self.accuracy:
                progress.converged_at = step

    def _compare(self, module: StackModule, metrics: Mapping[str, Tensor]) -> None:
        """Note whose evaluation is the best so far; the checkpoint keeps its weights."""
        for index, found in enumerate(evaluated(module.step, metrics)):
            if (
                found is not None
                and found.beats(self.progress[index].best)
                and has_finite_weights(module.stack, index)
            ):
                self.progress[index].best = found

    def _write(
        self, kind: str, step: int, metrics: Mapping[str, Tensor], shared: Mapping[str, float]
    ) -> None:
        by_member = {name: value.tolist() for name, value in metrics.items()}
        for index, progress in enumerate(self.progress):
            if progress.done is not None:
                continue
            own = {name: values[index] for name, values in by_member.items()} | dict(shared)
            progress.member.append_row({"kind": kind, "step": step, **own})
            if (logger := self.loggers.get(progress.member.seed)) is not None:
                finite = {name: value for name, value in own.items() if math.isfinite(value)}
                logger.log_metrics(finite, step)


class StackProgress(L.Callback):
    """Steps of all that is to do, with loss and accuracy, which are means over members."""

    def __init__(self, progress: Progress, every: int, max_steps: int) -> None:
        self.progress, self.every, self.max_steps = progress, every, max_steps
        self._open = ExitStack()
        self._bar = Bar()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, StackModule)
        seeds = ", ".join(str(seed) for seed in pl_module.seeds)
        what = f"seed{'s' if len(pl_module.seeds) > 1 else ''} {seeds}"
        self._bar = self._open.enter_context(self.progress.bar(what, self.max_steps, pl_module.step))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, StackModule)
        step = pl_module.step
        if step % self.every == 0 or step == self.max_steps:
            shown = {}
            if "loss" in pl_module.latest:
                head = pl_module.task.headline
                latest = {"loss": pl_module.latest["loss"], head: pl_module.latest[f"accuracy/{head}"]}
                shown = {name: f"{float(value.mean()):.3f}" for name, value in latest.items()}
            self._bar.update(step, **shown)

    def on_train_end(self, *_: Any) -> None:
        self._open.close()

    def on_exception(self, *_: Any) -> None:
        self._open.close()
