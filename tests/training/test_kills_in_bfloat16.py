"""SIGKILL in bfloat16, end to end and compiled: resumed weights are those of an uninterrupted run, bit for bit."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cohorts import (
    UNWATCHED,
    after_step,
    cohort_in,
    end_of,
    exit_status,
    memory_folder,
    published,
    start_child,
    trained,
)

from polymorph.cli import command
from polymorph.kernels.ragged_attention import has_kernel
from polymorph.store import Cohort
from polymorph.training import numerics
from polymorph.training.module import StackModule

pytestmark = pytest.mark.skipif(not has_kernel(16), reason="there is no C++ compiler")
KILLS = 4
STEPS = 30
MODEL = ("seed=[0,1]", "model.d_head=16", "trainer.precision=bfloat16", UNWATCHED)
EAGER, COMPILED = (*MODEL, "trainer.compile=auto"), (*MODEL, "trainer.compile=true")


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def whole_eager() -> Iterator[dict[str, str]]:
    with memory_folder() as folder:
        yield published(trained(folder, *EAGER))


@pytest.fixture(scope="module")
def whole_compiled() -> Iterator[dict[str, str]]:
    with memory_folder() as folder:
        yield published(in_a_process_of_its_own(folder, *COMPILED))


def in_a_process_of_its_own(root: Path, *overrides: str) -> Cohort:
    """What is compiled there leaves no threads here, which later forks would not survive."""
    assert end_of(start_child(lambda: exit_status(root, *overrides))) == command.DONE
    return cohort_in(root)


def kill(module: StackModule) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_after(root: Path, step: int, *overrides: str) -> None:
    def action() -> int:
        with after_step(step, kill):
            return exit_status(root, *overrides)

    assert end_of(start_child(action)) == -signal.SIGKILL


def steps_of(seed: int) -> list[int]:
    """At which steps a run is killed, and killed again after it went on."""
    return sorted(random.Random(seed).sample(range(1, STEPS), KILLS))


@pytest.mark.parametrize("seed", range(3))
def test_kills_leave_no_trace(root: Path, whole_eager: dict[str, str], seed: int) -> None:
    for step in steps_of(seed):
        killed_after(root, step, *EAGER)
    assert published(in_a_process_of_its_own(root, *EAGER)) == whole_eager


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(13))  # 52 kills
def test_kills_of_a_compiled_run_leave_no_trace(
    root: Path, whole_compiled: dict[str, str], seed: int
) -> None:
    for step in steps_of(seed):
        killed_after(root, step, *COMPILED)
    assert published(in_a_process_of_its_own(root, *COMPILED)) == whole_compiled


def test_the_precision_would_be_noticed(root: Path, whole_eager: dict[str, str]) -> None:
    other = published(trained(root, *EAGER, "trainer.precision=float32"))
    assert other.keys() == whole_eager.keys()
    assert other["seed-0000, step 30"] != whole_eager["seed-0000, step 30"]


def broken(self: StackModule, *arguments: object) -> None:
    if self.mode.compiled:
        raise RuntimeError("the compiler is broken")


def test_a_compiler_that_fails_is_said_and_the_member_goes_on_without(
    root: Path,
    whole_eager: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second time it would work, but then the bits would be others."""
    monkeypatch.setattr(numerics, "LONG_TRAINING", 1)
    with monkeypatch.context() as patch:
        patch.setattr(StackModule, "warm_up", broken)
        killed_after(root, 25, *EAGER)
    assert exit_status(root, *EAGER) == command.DONE
    assert "continue after step 20 (bfloat16)" in capsys.readouterr().out
    assert published(cohort_in(root)) == whole_eager


def test_a_step_that_fails_uncompiled_too_is_no_fault_of_the_compiler(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(self: StackModule, *arguments: object) -> None:
        raise torch.OutOfMemoryError("there is no memory left")

    monkeypatch.setattr(StackModule, "warm_up", exhausted)
    monkeypatch.setattr(numerics, "LONG_TRAINING", 1)
    assert exit_status(root, *EAGER) == command.FAILED
    said = capsys.readouterr().out
    assert "out_of_memory" in said
    assert "compiler" not in said


def test_another_precision_does_not_go_on(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed_after(root, 25, *MODEL, "trainer.precision=float32")
    before = published(cohort_in(root))
    with pytest.raises(Exception, match="precision"):
        exit_status(root, *EAGER)
    assert published(cohort_in(root)) == before
