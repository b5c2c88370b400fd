"""How long a training will take and how to stop it, said once it is known and corrected once an evaluation was seen."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning as L

from polymorph.training.checkpoint import Progress, Schedule
from polymorph.training.module import StackModule

ENOUGH_STEPS, ENOUGH_SECONDS, FEWEST_STEPS = 20, 10.0, 3
"""Something is said after so many steps, or after so long if it was so many steps at least."""
LONG = 60.0
"""Seconds; of a training that takes no longer nothing is said."""
CORRECTED = 0.2
"""By which share the estimate must have changed to be said again."""

Kind = Literal["plain", "evaluation", "checkpoint"]
KINDS: tuple[Kind, ...] = ("plain", "evaluation", "checkpoint")


def now() -> float:
    return time.perf_counter()


@dataclass
class Estimate:
    """The mean duration of steps of each kind: a step pays for the evaluation and the checkpoint that follow it."""

    schedule: Schedule
    eval_every: int
    seconds: dict[Kind, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    steps: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def kind(self, step: int) -> Kind:
        if step in self.schedule.checkpoints:
            return "checkpoint"
        return "evaluation" if step % self.eval_every == 0 else "plain"

    def add(self, step: int, seconds: float) -> None:
        self.seconds[self.kind(step)] += seconds
        self.steps[self.kind(step)] += 1

    def remaining(self, step: int, last: int) -> float:
        """Seconds of the steps after `step` up to `last`; a kind that was not seen yet costs what others do."""
        return sum(self._mean(self.kind(later)) for later in range(step + 1, last + 1))

    def _mean(self, kind: Kind) -> float:
        if self.steps[kind]:
            return self.seconds[kind] / self.steps[kind]
        return sum(self.seconds.values()) / max(1, sum(self.steps.values()))


@dataclass
class Forecast(L.Callback):
    """Stands last, so that a step's duration has in it whatever the other callbacks do after it."""

    progress: Sequence[Progress]
    schedule: Schedule
    eval_every: int
    say: Callable[[str], None]
    clock: Callable[[], float] = field(default_factory=lambda: now)

    def __post_init__(self) -> None:
        self._estimate = Estimate(self.schedule, self.eval_every)
        self._since = self._begun = 0.0
        self._seen = 0
        self._first: float | None = None  # when the training would end, by the first estimate
        self._told = False
        self._corrected = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = self._begun = self.clock()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, StackModule)
        self.after(pl_module.step)

    def after(self, step: int) -> None:
        """Measure the step that was just taken, and say what follows if that is known now."""
        if self._corrected:
            return
        before, self._since = self._since, self.clock()
        self._seen += 1
        if self._seen > 1:  # the first one pays for what is made once
            self._estimate.add(step, self._since - before)
        if self._first is None and self._is_enough():
            remaining = self._remaining(step)
            self._first = self._since + remaining
            self._told = self._tell(step, remaining, "")
        elif self._first is not None and step % self.eval_every == 0:
            self._correct(step, self._first - self._since)

    def _is_enough(self) -> bool:
        late = self._since - self._begun >= ENOUGH_SECONDS
        return self._seen >= ENOUGH_STEPS or (late and self._seen >= FEWEST_STEPS)

    def _correct(self, step: int, said: float) -> None:
        self._corrected = True
        remaining = self._remaining(step)
        if not self._told or abs(remaining - said) > CORRECTED * said:
            self._tell(step, remaining, "by now " if self._told else "")

    def _remaining(self, step: int) -> float:
        return self._estimate.remaining(step, self._last())

    def _last(self) -> int:
        return max((self.schedule.last_step(p) for p in self.progress if p.done is None), default=0)

    def _tell(self, step: int, seconds: float, again: str) -> bool:
        if seconds <= LONG:
            return False
        left = self._last() - step
        names = ", ".join(str(p.member.seed) for p in self.progress)
        who = f"seed{'s' if len(self.progress) > 1 else ''} {names}"
        less = " (less if it converges)" if any(p.converged_at is None for p in self.progress) else ""
        self.say(
            f"{who}: {again}about {duration(seconds)} to go for {left:,} steps at {short(seconds / left)} each{less}; "
            "Ctrl-C or SIGTERM stops it with its state kept, the same command goes on"
        )
        return True


def duration(seconds: float) -> str:
    """In words, in minutes: `3 min`, `1 h 12 min`, `2 d 5 h`."""
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def short(seconds: float) -> str:
    """Of one step: in milliseconds up to a second."""
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.2g} s"
