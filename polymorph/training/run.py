"""Train the members of a cohort: legs of one stack each, until every member has a final state."""

import logging
import subprocess
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from polymorph.errors import RequestError, RunError
from polymorph.models.architecture import Trainable
from polymorph.progress import SILENT
from polymorph.progress import Progress as Bars
from polymorph.store import Cohort, Member, NoSpaceError, State, Status
from polymorph.store.differences import side_by_side
from polymorph.tasks.task import Task
from polymorph.training import best
from polymorph.training.checkpoint import Checkpoint, Progress, Schedule
from polymorph.training.config import CheckpointsConfig, OptimizerConfig, SharedIO, TrainerConfig
from polymorph.training.forecast import Forecast
from polymorph.training.grouping import Leg, is_final, legs
from polymorph.training.interruption import Interruption, interruptible
from polymorph.training.logging import Record, StackProgress
from polymorph.training.module import StackModule
from polymorph.training.numerics import (
    StepMode,
    device_of,
    length_groups,
    numerics,
    prepare_process,
    resumed_mode,
    step_mode,
)
from polymorph.training.schedule import checkpoint_steps
from polymorph.training.stack import Stack
from polymorph.training.state import CONVERGED_AT, parameters_of, restore_optimizer

Say = Callable[[str], None]
TORCH_COMPILE_ERRORS = (TorchDynamoException, subprocess.SubprocessError, RuntimeError, OSError)


@dataclass
class Training:
    """All that decides how the members of a cohort are trained."""

    cohort: Cohort
    task: Task
    model: Trainable
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    checkpoints: CheckpointsConfig
    config_digest: Callable[[int], str]
    shared_io: SharedIO | None = None
    callbacks: Callable[[Checkpoint], list[L.Callback]] = field(default=lambda checkpoint: [])
    loggers: Mapping[int, Logger] = field(default_factory=dict)
    say: Say = print
    bars: Bars = SILENT

    def run(self, seeds: Sequence[int]) -> dict[int, Status | None]:
        """Train what is unfinished among `seeds`; the state of each afterwards."""
        prepare_process(self.trainer.threads)
        members = [self.cohort.member(seed) for seed in seeds]
        for member in members:
            member.sweep()
            if is_final(status := member.status()):
                assert status is not None
                self.say(f"{member.name}: {status.state} at step {status.step} ({status.reason}); left alone")
        with interruptible() as interruption:
            unfinished = [m for m in members if not is_final(m.status())]
            self._run(unfinished, interruption)
            if interruption.requested:
                _preempt(unfinished)
        return {member.seed: member.status() for member in members}

    def _run(self, unfinished: list[Member], interruption: Interruption) -> None:
        failed: set[int] = set()
        while unfinished and not interruption.requested:
            ready = [m for m in unfinished if self._is_donor(m)] or unfinished
            planned, notes = legs(ready)
            for note in notes:
                self.say(f"not used: {note}")
            for leg in planned:
                if not interruption.requested:
                    failed |= self._leg(leg, interruption) or _stuck(leg)
            unfinished = [m for m in unfinished if m.seed not in failed and not is_final(m.status())]

    def _is_donor(self, member: Member) -> bool:
        return self.shared_io is not None and member.seed == self.shared_io.donor

    def _leg(self, leg: Leg, interruption: Interruption) -> set[int]:
        """Train one stack as far as it goes; the seeds that failed, each with its state recorded."""
        try:
            self._train(leg, interruption)
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            return self._fail(leg, "out_of_memory", error)
        except NoSpaceError as error:
            return self._fail(leg, "no_space", error)
        except Exception as error:
            return self._fail(leg, "failed", error)
        return set()

    def _fail(
        self, leg: Leg, state: Literal["out_of_memory", "no_space", "failed"], error: BaseException
    ) -> set[int]:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        self.say(f"seeds {leg.seeds}: {state}: {reason}")
        for member in leg.members:
            if is_final(member.status()):
                continue
            try:
                step = max(member.steps(), default=0)
                member.set_status(Status(state, step, reason, tuple(leg.seeds)))
                member.append_row({"kind": "failure", "step": step, "traceback": _trace(error)})
            except RunError as second:
                self.say(f"{member.name}: its state could not be recorded: {second}")
        return set(leg.seeds)

    def _train(self, leg: Leg, interruption: Interruption) -> None:
        module = self._compiled_module(leg)
        facts = {"stack": leg.seeds, "numerics": self._numerics(module.mode)}
        self._check_continuation(leg, facts)
        progress = [self._progress(*own) for own in zip(leg.members, leg.states, strict=True)]
        max_steps = self.trainer.max_steps
        steps = frozenset(checkpoint_steps(self.checkpoints, max_steps))
        schedule = Schedule(steps, max_steps, self.trainer.convergence.patience)
        checkpoint = Checkpoint(
            progress, schedule, interruption, facts, self.model.files(), self.checkpoints.keep_states
        )
        record = Record(progress, self.loggers, self.trainer.convergence.accuracy, max_steps)
        if checkpoint.settle(leg.step):
            return  # the others go on without those that have ended
        self._announce(leg, module.mode)
        bar = StackProgress(self.bars, self.trainer.log_every, max_steps)
        ahead = Forecast(progress, schedule, self.trainer.eval_every, self.say)
        callbacks = [_Restore(leg), record, checkpoint, *self.callbacks(checkpoint), bar, ahead]
        # Lightning's greetings and its advice on data loaders are not about this.
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            self._trainer(max_steps - leg.step, callbacks).fit(module)

    def _trainer(self, steps: int, callbacks: list[L.Callback]) -> L.Trainer:
        return L.Trainer(
            accelerator="gpu" if self.device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if self.mode.precision == "bfloat16" else "32-true",
            max_steps=steps,
            logger=False,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(self.cohort.folder),
        )

    @property
    def device(self) -> torch.device:
        return device_of(self.trainer.accelerator)

    @property
    def mode(self) -> StepMode:
        return step_mode(self.trainer, self.device, self.model.flat_ready)

    def _compiled_module(self, leg: Leg) -> StackModule:
        """The stack, in the mode that its members began with; uncompiled, which is said, where the compiler fails.

        What fails uncompiled as well, such as for want of memory, is no fault of the compiler and is raised.
        """
        numerics = [state.manifest.facts.get("numerics") or {} for state in leg.states if state is not None]
        module = self._module(leg, resumed_mode(self.mode, numerics, self.trainer.compile))
        if not module.mode.compiled:
            return module
        try:
            module.warm_up(self.device)
        except TORCH_COMPILE_ERRORS as error:
            if self.trainer.compile is True:
                raise
            module = self._module(leg, replace(module.mode, compiled=False))
            module.warm_up(self.device)
            self.say(f"not compiled, since the compiler failed: {str(error).strip().splitlines()[0][:200]}")
        return module

    def _module(self, leg: Leg, mode: StepMode) -> StackModule:
        members = []
        for member, state in zip(leg.members, leg.states, strict=True):
            model = self.model.untrained(member.seed)
            if state is not None:
                model.load_state_dict(parameters_of(state.tensors), strict=False)
            self._freeze_shared(model, member)
            members.append(model)
        return StackModule(Stack(members), leg.seeds, self.task, self.optimizer, self.trainer, leg.step, mode)

    def _freeze_shared(self, model: nn.Module, member: Member) -> None:
        if self.shared_io is None or self._is_donor(member):
            return
        weights = donor_weights(self.cohort, self.shared_io, self.model)
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.data.copy_(weights[name])
                parameter.requires_grad_(False)

    def _numerics(self, mode: StepMode) -> dict[str, Any]:
        return numerics(self.device, mode, length_groups(self.trainer, self.device))

    def _check_continuation(self, leg: Leg, facts: Mapping[str, Any]) -> None:
        """Refuse other numerics than before unless allowed; mark what makes the bits differ.

        A member that was killed may have published more than it can resume from. Under equal facts it will
        publish the same again; under others it will not, and what is there is set aside.
        """
        differing: dict[Member, dict[str, Any]] = {}
        for member, state in zip(leg.members, leg.states, strict=True):
            manifests = [] if state is None else [state.manifest]
            later = member.published_after(leg.after)
            anew = best.resumed(member, state)[1] != ""
            for manifest in (*manifests, *later):
                before = {key: manifest.facts.get(key) for key in facts}
                if before["numerics"] != facts["numerics"] and not self.trainer.allow_other_numerics:
                    raise RunError(
                        f"{member.name} was trained with other numerics: "
                        f"{side_by_side(before['numerics'] or {}, facts['numerics'])}; "
                        "trainer.allow_other_numerics=true continues it, to rounding only, and marks it"
                    )
                again = manifest in later and (anew or best.is_outdated(manifest))
                if before != dict(facts) or again:
                    differing.setdefault(member, before)
        for member, before in differing.items():
            gone = member.set_aside_after(leg.after)
            row = {"kind": "continued", "step": leg.step, "before": before, "now": dict(facts)}
            member.append_row({**row, "set_aside": gone})

    def _progress(self, member: Member, state: State | None) -> Progress:
        parent = None if state is None or state.step == 0 else state.manifest.facts.get("parent")
        converged = -1 if state is None else int(state.tensors[CONVERGED_AT])
        found, anew = best.resumed(member, state)
        if anew:
            self.say(anew)
        at = None if converged < 0 else converged
        return Progress(member, self.config_digest(member.seed), parent, at, found)

    def _announce(self, leg: Leg, mode: StepMode) -> None:
        names = ", ".join(str(seed) for seed in leg.seeds)
        after = f"continue after step {leg.step}" if leg.step else "start"
        how = f"{mode.precision}, compiled" if mode.compiled else mode.precision
        self.say(f"training seed{'s' if len(leg.seeds) > 1 else ''} {names} as one stack: {after} ({how})")


@dataclass
class _Restore(L.Callback):
    """Gives the optimiser that Lightning has made the moments of the members."""

    leg: Leg

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, StackModule)
        states = [state.tensors for state in self.leg.states if state is not None]
        restore_optimizer(pl_module.stack, trainer.optimizers[0], states, self.leg.step)


def donor_weights(cohort: Cohort, shared: SharedIO, model: Trainable) -> dict[str, Tensor]:
    """The donor's last weights that are shared; `RequestError` if it has not finished."""
    donor = cohort.member(shared.donor)
    status = donor.status()
    if status is None or status.state != "completed":
        state = "not there" if status is None else f"{status.state} at step {status.step}"
        raise RequestError(
            f"cohort.donor={shared.donor}: {donor.name} of {cohort.name} is {state}; "
            f"a donor must have finished: train seed={shared.donor} first, or name it among the seeds"
        )
    weights = donor.read_step(donor.steps()[-1]).weights
    return {name: weights[name] for name in shared.parameters(model)}


def _stuck(leg: Leg) -> set[int]:
    """The members, if none ended or went on: the loop stopped for reasons of its own."""
    moved = (is_final(m.status()) or max(m.states(), default=0) > leg.step for m in leg.members)
    return set() if any(moved) else set(leg.seeds)


def _preempt(members: Sequence[Member]) -> None:
    """Say of those that were not reached that they were to go on."""
    for member in members:
        if (status := member.status()) is None or status.state == "running":
            step = max(member.states(), default=0)
            member.set_status(Status("preempted", step, "asked to stop before it went on"))


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-8000:]
