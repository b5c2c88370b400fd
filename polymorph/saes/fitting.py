"""SAEs in training under Lightning: their log, and the callbacks that stop, keep and show it."""

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from polymorph.progress import Bar, Progress
from polymorph.saes.module import Measured, SAEModule, make_trainer, progress_text
from polymorph.saes.places import Place
from polymorph.saes.stored import sae_name
from polymorph.store import Cohort

PAUSE, SHARE = 60.0, 0.05


@dataclass
class Log:
    """Every SAE's numbers to the log of its member, and to the member's loggers."""

    cohort: Cohort
    places: Sequence[Place]
    family: str
    loggers: Mapping[int, Logger]
    by_checkpoint: bool = False
    """Whether other checkpoints of the same members follow or went before."""

    def __call__(self, step: int, measured: Measured) -> None:
        by_name = {name: values.tolist() for name, values in measured.items()}
        for seed in sorted({place.seed for place in self.places}):
            own = dict(self._of_member(seed, by_name))
            at = sorted({place.step for place in self.places if place.seed == seed})
            self.cohort.member(seed).append_row({"kind": "sae", "step": step, "checkpoints": at, **own})
            if (logger := self.loggers.get(seed)) is not None:
                logger.log_metrics(own, step)

    def _of_member(self, seed: int, values: Mapping[str, list[float]]) -> Iterator[tuple[str, float]]:
        """`sae/<name>/<site>/<metric>`; of several checkpoints, with the checkpoint before the site."""
        for index, place in enumerate(self.places):
            if place.seed == seed:
                at = f"step-{place.step}/" if self.by_checkpoint else ""
                where = f"sae/{sae_name(self.family, place.variant)}/{at}{place.site}"
                yield from ((f"{where}/{name}", own[index]) for name, own in values.items())


def fit(module: SAEModule, device: torch.device, callbacks: list[L.Callback]) -> None:
    """Run the module to its last step."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    # Lightning's greetings and its advice are not about this.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        make_trainer(callbacks, accelerator=accelerator, enable_progress_bar=False).fit(module)


@dataclass
class Stop(L.Callback):
    stopped: Callable[[], bool]
    listen: Callable[[], None]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.listen()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or self.stopped()


class StepBar(L.Callback):
    """Steps, with means over SAEs."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self._open, self._bar = progress, contextlib.ExitStack(), Bar()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SAEModule)
        self._bar = self._open.enter_context(self.progress.bar("SAEs", pl_module.steps, pl_module.step))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SAEModule)
        measured = pl_module.step % pl_module.log_every == 0 or pl_module.step == pl_module.steps
        if measured or pl_module.step % 10 == 0:
            self._bar.update(pl_module.step, **(progress_text(pl_module.latest) if measured else {}))

    def on_train_end(self, *_: Any) -> None:
        self._open.close()

    def on_exception(self, *_: Any) -> None:
        self._open.close()


class Keep(L.Callback):
    """Has the state published every `every` steps, and where the training is asked to stop.

    None is a minute, and longer where publishing takes more than a twentieth of the time.
    """

    def __init__(self, publish: Callable[[int], None], every: int | None) -> None:
        self.publish, self.every = publish, every
        self._due = time.monotonic() + PAUSE

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SAEModule)
        if pl_module.step == pl_module.steps:
            return  # it is about to be published
        if trainer.should_stop or self._is_due(pl_module.step):
            start = time.monotonic()
            self.publish(pl_module.step)
            took = time.monotonic() - start
            self._due = time.monotonic() + max(PAUSE, took / SHARE)

    def _is_due(self, step: int) -> bool:
        return time.monotonic() >= self._due if self.every is None else step % self.every == 0
