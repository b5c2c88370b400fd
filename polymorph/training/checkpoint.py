"""Publishing at the right steps, and knowing when a member is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor

from polymorph.store import Manifest, Member, Status
from polymorph.training import best
from polymorph.training.best import Evaluated
from polymorph.training.interruption import Interruption
from polymorph.training.module import StackModule
from polymorph.training.state import CONVERGED_AT, member_state


@dataclass
class Progress:
    """One member of a running stack."""

    member: Member
    config: str
    """Digest of what decides the member."""
    parent: str | None
    """Digest of the checkpoint that the next one follows."""
    converged_at: int | None = None
    best: Evaluated | None = None
    """Its best evaluation so far."""
    done: str | None = None
    """Its final state once it has one; it then only rides along."""


@dataclass
class Publication:
    """What was just published, for whoever comes after: the step, and by seed the manifest of each checkpoint."""

    step: int = -1
    manifests: Mapping[int, Manifest] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.manifests)


@dataclass
class Schedule:
    """The steps of a leg: when to publish, and when a member is done."""

    checkpoints: frozenset[int]
    max_steps: int
    patience: int

    def last_step(self, progress: Progress) -> int:
        if progress.converged_at is None:
            return self.max_steps
        return min(self.max_steps, progress.converged_at + self.patience)


@dataclass
class Checkpoint(L.Callback):
    """At a checkpoint, and where a member ends: weights first, then the state for resuming, then the status.

    Nothing is pruned and no status is written before all members have published: a run that is killed in
    between goes back to a step that all have, as the stack that it was. The weights of an evaluation that was the
    best so far are kept before all of that.

    A member whose weights or loss are not finite is marked diverged and keeps its last finite checkpoint. It
    stays in the stack to the end of the leg, so that its siblings' bits do not change.
    """

    progress: list[Progress]
    schedule: Schedule
    interruption: Interruption
    facts: Mapping[str, Any]
    """Facts that all members share: numerics and composition."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What stands beside the weights, so that others can open them."""
    keep_states: int = 2
    published: Publication = field(default_factory=Publication)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.interruption.listen()  # Lightning has just put its own handlers over ours
        module = _stack_module(pl_module)
        if module.step == 0:
            self._publish(trainer, module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = _stack_module(pl_module)
        step = module.step
        self._keep_best(module)
        ends = [p for p in self.progress if p.done is None and step >= self.schedule.last_step(p)]
        if step in self.schedule.checkpoints or ends or self.interruption.requested:
            self._publish(trainer, module)
        if ends or self.interruption.requested or all(p.done for p in self.progress):
            trainer.should_stop = True

    def settle(self, step: int) -> bool:
        """Whether members had ended at `step` already, and a kill came before their status; they get it now."""
        ended = [p for p in self.progress if step >= self.schedule.last_step(p)]
        for progress in ended:
            self._record(progress, step, ends=True)
        return bool(ended)

    def _keep_best(self, module: StackModule) -> None:
        """Publish the weights of whom the evaluation of this step was the best of."""
        for index, progress in enumerate(self.progress):
            found = progress.best
            if progress.done is None and found is not None and found.step == module.step:
                weights = module.stack.member_weights(index)
                facts = {**self.facts, "config": progress.config, "parent": progress.parent}
                best.keep(progress.member, found, weights, facts, self.files)

    def _publish(self, trainer: L.Trainer, module: StackModule) -> None:
        step = module.step
        published: dict[int, Manifest] = {}
        kept: list[Progress] = []
        lost: list[Progress] = []
        for index, progress in enumerate(self.progress):
            if progress.done is not None:
                continue
            facts = {**self.facts, "config": progress.config}
            state = member_state(module.stack, trainer.optimizers[0], index)
            if not all(bool(torch.isfinite(value).all()) for value in state.values()):
                lost.append(progress)
                continue
            if step in self.schedule.checkpoints or step >= self.schedule.last_step(progress):
                weights = module.stack.member_weights(index)
                manifest = progress.member.publish_step(
                    step, weights, {**facts, "parent": progress.parent}, files=self.files
                )
                progress.parent = manifest.digest
                published[progress.member.seed] = manifest
            self._keep_state(progress, step, state, facts)
            kept.append(progress)
        for progress in lost:
            self._diverge(progress, step)
        for progress in kept:
            progress.member.prune_states(self.keep_states)
            best.prune(progress.member, progress.best)
            self._record(progress, step, step >= self.schedule.last_step(progress))
        self.published = Publication(step, published)

    def _keep_state(
        self, progress: Progress, step: int, state: dict[str, Tensor], facts: dict[str, Any]
    ) -> None:
        converged = -1 if progress.converged_at is None else progress.converged_at
        state[CONVERGED_AT] = torch.tensor(converged)
        facts = {**facts, "parent": progress.parent, best.FACT: best.fact_of(progress.best)}
        progress.member.publish_state(step, state, facts)

    def _record(self, progress: Progress, step: int, ends: bool) -> None:
        stack = tuple(self.facts["stack"])
        if ends:
            at = progress.converged_at
            progress.done = "completed"
            reason = "all steps taken" if at is None else f"converged at step {at}"
            if progress.best is not None:
                best.finish(progress.member, progress.best, self.files)
            _log_best(progress)
            progress.member.set_status(Status("completed", step, _with_best(reason, progress), stack))
        elif self.interruption.requested:
            progress.member.set_status(Status("preempted", step, "asked to stop; its state is kept", stack))
        else:
            progress.member.set_status(Status("running", step, "", stack))

    def _diverge(self, progress: Progress, step: int) -> None:
        kept = progress.member.steps()
        last = kept[-1] if kept else 0
        reason = f"not finite at step {step}; the last finite checkpoint is step {last}"
        progress.done = "diverged"
        _log_best(progress)
        progress.member.set_status(Status("diverged", step, _with_best(reason, progress)))


def _log_best(progress: Progress) -> None:
    if progress.best is not None:
        progress.member.append_row(best.row_of(progress.best))


def _with_best(reason: str, progress: Progress) -> str:
    return reason if progress.best is None else f"{reason}; {progress.best}"


def _stack_module(module: L.LightningModule) -> StackModule:
    if not isinstance(module, StackModule):
        raise TypeError(f"checkpoints are of a StackModule, not of {type(module).__name__}")
    return module
