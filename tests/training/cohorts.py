"""Small cohorts that train in a second, ways to interrupt that, and what to compare afterwards."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch

from polymorph.cli import command, train
from polymorph.cli.config import TrainConfig, register
from polymorph.cli.ending import Ending
from polymorph.store import Cohort, Status
from polymorph.store.process_liveness import home
from polymorph.training.logging import Record
from polymorph.training.module import StackModule

torch.set_num_threads(1)  # the tests fork, and a pool of threads does not survive that
home()
register()

MEMORY = "/dev/shm"
NAME = "small"
CRASHED = 77
SMALL = (
    "model.n_layers=1 model.d_model=16 model.n_heads=2 model.d_head=8 model.d_mlp=32 optimizer.warmup_steps=5 "
    "trainer.batch_size=8 trainer.length_groups=2 trainer.max_steps=30 trainer.threads=1 trainer.accelerator=cpu "
    "trainer.progress=false trainer.log_every=10 trainer.eval_every=15 trainer.eval_sequences=8 "
    "checkpoints.powers_until=4 checkpoints.every=10 probe.fit=16 probe.eval=16 logger=none "
    f"cohort.name={NAME}"
).split()
UNWATCHED = "callbacks.cross_seed.enabled=false"
"""Without the comparison, which takes most of the time of so small a training."""


@contextmanager
def memory_folder() -> Iterator[Path]:
    """In memory where there is such a place: syncing thousands of files to a disk takes long."""
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix="training-", dir=where) as folder:
        yield Path(folder)


# Requests.


def arguments(root: Path, *overrides: str) -> list[str]:
    return [*SMALL, f"cohort.root={root}", *overrides]


def jobs_of(root: Path, *overrides: str) -> list[TrainConfig]:
    """What `python train.py …` makes of these arguments, checked as it does."""
    jobs = command.requests("train", TrainConfig, arguments(root, *overrides))
    assert jobs is not None
    train.check(jobs)
    return jobs


def trained(root: Path, *overrides: str) -> Cohort:
    """The cohort after the request was carried out here."""
    for job in jobs_of(root, *overrides):
        train.perform(job)
    return cohort_in(root)


def exit_status(root: Path, *overrides: str) -> int:
    jobs = jobs_of(root, *overrides)
    endings: list[Ending] = []
    for job in jobs:
        endings.append(train.perform(job, endings))
    return train.outcome(jobs, endings)


def cohort_in(root: Path, name: str = NAME) -> Cohort:
    return Cohort.open(root / name)


def status_of(cohort: Cohort, seed: int) -> Status:
    status = cohort.member(seed).status()
    assert status is not None
    return status


# Results.


def published(cohort: Cohort) -> dict[str, str]:
    """The digests of all checkpoints and of each member's last state and best evaluation, verified by reading them."""
    found = {}
    for member in cohort.members():
        for step in member.steps():
            found[f"{member.name}, step {step}"] = member.read_step(step).digest
        if states := member.states():
            found[f"{member.name}, state {states[-1]}"] = member.read_state(states[-1]).manifest.digest
        if (best := member.best_step()) is not None:
            found[f"{member.name}, best {best}"] = member.read_best().digest
    return found


def with_best(cohort: Cohort, seed: int, *steps: int) -> list[int]:
    """These steps and that of the member's best evaluation: those at which a completed member has a checkpoint."""
    best = cohort.member(seed).best_step()
    assert best is not None
    return sorted({*steps, best})


def weights_at(cohort: Cohort, seed: int, step: int | None = None) -> dict[str, torch.Tensor]:
    member = cohort.member(seed)
    return member.read_step(member.steps()[-1] if step is None else step).weights


def all_weights(cohort: Cohort, seed: int) -> dict[str, torch.Tensor]:
    """Every weight of a member at every checkpoint, under `<step>/<name>`."""
    return {
        f"{step}/{name}": value
        for step in cohort.member(seed).steps()
        for name, value in weights_at(cohort, seed, step).items()
    }


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def snapshot(folder: Path, *without: str) -> dict[str, bytes]:
    """Every file below `folder` with its bytes, except files of these names."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in without)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows_of_kind(cohort: Cohort, seed: int, kind: str) -> list[dict[str, Any]]:
    return [row for row in cohort.member(seed).rows() if row["kind"] == kind]


def copy_of(cohort: Cohort, root: Path) -> Cohort:
    shutil.copytree(cohort.folder, root / cohort.folder.name)
    return cohort_in(root, cohort.folder.name)


# Forked processes, which are spared the seconds that importing takes.


def start_child(action: Callable[[], int | None]) -> int:
    """The number of a process that ends with what `action` returns, or `CRASHED` if it raises."""
    child = os.fork()
    if child:
        return child
    status = CRASHED
    try:
        status = action() or 0
    finally:
        os._exit(status)


def end_of(child: int) -> int:
    """The exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def signalled_after(child: int, seconds: float, number: signal.Signals) -> int:
    """How the child ended that got this signal after so long, unless it ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, number)
    return end_of(child)


# Faults inside the training.


@contextmanager
def after_step(step: int, fault: Callable[[StackModule], None]) -> Iterator[None]:
    """`fault` happens to the stack right after it took this step, before anybody looks at it."""
    original = StackModule.optimizer_step

    def optimizer_step(self: StackModule, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        if self.step == step:
            fault(self)

    with mock.patch.object(StackModule, "optimizer_step", optimizer_step):
        yield


def slowed(seconds: float) -> Any:
    """Every step takes this much longer; its result is the same."""
    original = StackModule.training_step

    def training_step(self: StackModule, *arguments: Any) -> torch.Tensor:
        time.sleep(seconds)
        return original(self, *arguments)

    return mock.patch.object(StackModule, "training_step", training_step)


def converging(*seeds: int) -> Any:
    """Of these members every evaluation is perfect, of all others none is."""
    original = Record._converge

    def converge(self: Record, step: int, least: torch.Tensor) -> None:
        perfect = [float(progress.member.seed in seeds) for progress in self.progress]
        original(self, step, torch.tensor(perfect, dtype=least.dtype))

    return mock.patch.object(Record, "_converge", converge)
