"""A run that was killed and run again has the bits of the run that was not (invariant I3)."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cohorts import (
    UNWATCHED,
    after_step,
    arguments,
    cohort_in,
    copy_of,
    end_of,
    exit_status,
    jobs_of,
    memory_folder,
    published,
    rows_of_kind,
    signalled_after,
    snapshot,
    start_child,
    status_of,
    trained,
    with_best,
)

from polymorph.cli import command, train
from polymorph.cli.config import TrainConfig
from polymorph.errors import RequestError
from polymorph.store import Cohort
from polymorph.training import numerics as numerics_module
from polymorph.training import run as run_module
from polymorph.training.module import StackModule

STACK = ("seed=[0,1,2]", UNWATCHED)
KILLS = 2


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[Cohort, float]]:
    """A stack that nobody interrupted, and the seconds that it took."""
    with memory_folder() as folder:
        trained(folder / "warm-up", *STACK)  # the first run of a process pays for more
        since = time.perf_counter()
        yield trained(folder, *STACK), time.perf_counter() - since


def halted_at(root: Path, step: int, *overrides: str) -> Cohort:
    """The cohort after its training was killed between two checkpoints."""

    def kill(module: StackModule) -> None:
        signal.raise_signal(signal.SIGKILL)

    def action() -> None:
        with after_step(step, kill):
            trained(root, *overrides)

    assert end_of(start_child(action)) == -signal.SIGKILL
    return cohort_in(root)


# Kills.


def killed_and_run_again(root: Path, seed: int, seconds: float) -> Cohort:
    """Killed at `KILLS` random times, anywhere from composing the config to the last status, then left alone."""
    draw = random.Random(seed)
    for _ in range(KILLS):
        child = start_child(lambda: trained(root, *STACK) and None)
        assert signalled_after(child, draw.uniform(0, seconds), signal.SIGKILL) in (-signal.SIGKILL, 0)
    assert end_of(start_child(lambda: exit_status(root, *STACK))) == command.DONE
    return cohort_in(root)


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(s, marks=pytest.mark.slow) for s in range(5, 25))]
)
def test_kills_at_random_times_leave_no_trace(root: Path, whole: tuple[Cohort, float], seed: int) -> None:
    cohort, seconds = whole
    again = killed_and_run_again(root, seed, seconds)
    assert published(again) == published(cohort)
    assert not list(again.folder.rglob(".draft*"))


def test_a_kill_with_the_comparison_on_leaves_every_pair(root: Path) -> None:
    few = ("seed=[0,1]", "checkpoints.powers_until=0", "checkpoints.every=15")
    cohort = trained(root / "whole", *few)
    halted_at(root / "killed", 20, *few)
    again = trained(root / "killed", *few)
    assert published(again) == published(cohort)
    assert snapshot(again.pairs.folder) == snapshot(cohort.pairs.folder)


@pytest.mark.parametrize("step", [1, 17, 30])
def test_a_kill_after_this_step_leaves_no_trace(root: Path, whole: tuple[Cohort, float], step: int) -> None:
    halted_at(root, step, *STACK)
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort_in(root)) == published(whole[0])


def test_other_weights_would_be_noticed(root: Path, whole: tuple[Cohort, float]) -> None:
    def nudge(module: StackModule) -> None:
        parameter = next(module.stack.parameters())
        parameter.data[0].view(-1)[0] += 1e-6

    with after_step(29, nudge):
        other = trained(root, *STACK)
    changed = {key for key, value in published(whole[0]).items() if published(other)[key] != value}
    assert changed == {"seed-0000, step 30", "seed-0000, state 30"}


# What is finished.


def test_a_finished_command_trains_nothing(
    root: Path,
    whole: tuple[Cohort, float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cohort = copy_of(whole[0], root)
    before = snapshot(cohort.folder)

    def train_anyway(*arguments: Any) -> None:
        pytest.fail("a finished member was trained")

    monkeypatch.setattr(run_module.Training, "_train", train_anyway)
    assert exit_status(root, *STACK) == command.DONE
    said = capsys.readouterr().out
    for seed in range(3):
        assert f"seed-000{seed}: completed at step 30 (all steps taken; best evaluation at step " in said
    assert said.count("; left alone") == 3
    assert snapshot(cohort.folder) == before


def test_one_more_seed_trains_that_one_alone(root: Path, whole: tuple[Cohort, float]) -> None:
    cohort = copy_of(whole[0], root)
    before = published(cohort)
    assert exit_status(root, "seed=[0,1,2,3]", UNWATCHED) == command.DONE
    after = published(cohort)
    assert before.items() <= after.items()
    assert status_of(cohort, 3).stack == (3,)


# Damaged and unequal states.


def damage(cohort: Cohort, seed: int, step: int) -> None:
    path = cohort.member(seed).folder / "state" / f"step-{step:08d}" / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_newest_state_gives_way_to_the_one_before(
    root: Path, whole: tuple[Cohort, float], capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = halted_at(root, 25, *STACK)
    assert cohort.member(1).states() == [10, 20]
    damage(cohort, 1, 20)
    assert exit_status(root, *STACK) == command.DONE
    said = capsys.readouterr().out
    assert "not used: " in said
    assert "seed-0001/state/step-00000020" in said
    assert "continue after step 10" in said
    assert published(cohort) == published(whole[0])


def test_with_no_readable_state_the_stack_starts_again(
    root: Path, whole: tuple[Cohort, float], capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = halted_at(root, 25, *STACK)
    for step in cohort.member(1).states():
        damage(cohort, 1, step)
    assert exit_status(root, *STACK) == command.DONE
    assert "seed-0001/state/step-00000010" in capsys.readouterr().out
    assert published(cohort) == published(whole[0])


def test_a_stack_rolls_back_to_the_newest_common_step(
    root: Path, whole: tuple[Cohort, float], capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = halted_at(root, 25, *STACK)
    member = cohort.member(2)  # killed before it had published what its siblings had
    for folder in ("steps", "state"):
        path = member.folder / folder / "step-00000020"
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    assert exit_status(root, *STACK) == command.DONE
    assert "seeds 0, 1, 2 as one stack: continue after step 10" in capsys.readouterr().out
    assert published(cohort) == published(whole[0])


# What decides the bits.


def test_another_length_is_another_config(root: Path, whole: tuple[Cohort, float]) -> None:
    cohort = copy_of(whole[0], root)
    before = snapshot(cohort.folder)
    with pytest.raises(RequestError, match=r"trainer\.max_steps: 30 there, 60 here"):
        jobs_of(root, *STACK, "trainer.max_steps=60")
    assert snapshot(cohort.folder) == before


def test_what_decides_nothing_may_change(root: Path, whole: tuple[Cohort, float]) -> None:
    halted_at(root, 17, *STACK)
    harmless = ("trainer.steps_at_once=3", "trainer.log_every=7", "checkpoints.keep_states=3")
    assert exit_status(root, *STACK, *harmless) == command.DONE
    assert published(cohort_in(root)) == published(whole[0])


def other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where PyTorch has two threads; here a second one would break later forks."""
    original = run_module.numerics
    monkeypatch.setattr(run_module, "numerics", lambda *a: {**original(*a), "threads": 2})


def test_other_numerics_are_refused(
    root: Path,
    whole: tuple[Cohort, float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cohort = halted_at(root, 25, *STACK)
    before = published(cohort)
    with monkeypatch.context() as patch:
        other_threads(patch)
        assert exit_status(root, *STACK) == command.FAILED
    said = capsys.readouterr().out
    assert "threads: 1 there, 2 here" in said
    assert "trainer.allow_other_numerics=true" in said
    assert published(cohort) == before
    # And nothing is lost by the attempt.
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort) == published(whole[0])


def test_another_precision_is_another_config(root: Path, whole: tuple[Cohort, float]) -> None:
    copy_of(whole[0], root)
    with pytest.raises(RequestError, match=r"trainer\.precision: 'auto' there, 'bfloat16' here"):
        jobs_of(root, *STACK, "trainer.precision=bfloat16")


def test_another_precision_by_another_device_is_refused(
    root: Path,
    whole: tuple[Cohort, float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`auto` means bfloat16 where the device has it and float32 elsewhere, and the configs are equal."""
    monkeypatch.setattr(numerics_module, "has_bfloat16", lambda device: True)
    halted_at(root, 25, *STACK)
    with monkeypatch.context() as patch:
        patch.setattr(numerics_module, "has_bfloat16", lambda device: False)
        assert exit_status(root, *STACK) == command.FAILED
    said = capsys.readouterr().out
    assert "precision: 'bfloat16' there, 'float32' here" in said
    assert "trainer.allow_other_numerics=true" in said
    assert exit_status(root, *STACK) == command.DONE


def test_other_numerics_are_marked_where_they_are_allowed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = halted_at(root, 25, *STACK)
    other_threads(monkeypatch)
    assert exit_status(root, *STACK, "trainer.allow_other_numerics=true") == command.DONE
    for member in cohort.members():
        (mark,) = rows_of_kind(cohort, member.seed, "continued")
        assert (mark["step"], mark["before"]["numerics"]["threads"], mark["now"]["numerics"]["threads"]) == (
            20,
            1,
            2,
        )
        assert member.read_step(10).manifest.facts["numerics"]["threads"] == 1
        assert member.read_step(30).manifest.facts["numerics"]["threads"] == 2


def test_another_composition_is_marked(root: Path, whole: tuple[Cohort, float]) -> None:
    cohort = halted_at(root, 25, *STACK)
    assert exit_status(root, "seed=0", UNWATCHED) == command.DONE
    (mark,) = rows_of_kind(cohort, 0, "continued")
    assert (mark["before"]["stack"], mark["now"]["stack"]) == ([0, 1, 2], [0])


def test_what_another_composition_published_ahead_is_set_aside(
    root: Path, whole: tuple[Cohort, float]
) -> None:
    """Alone, the member cannot come to the bits that the stack has published at step 20 already."""
    cohort = halted_at(root, 25, *STACK)
    damage(cohort, 0, 20)
    superseded = cohort.member(0).read_step(20).digest
    assert exit_status(root, "seed=0", UNWATCHED) == command.DONE
    member = cohort.member(0)
    (mark,) = rows_of_kind(cohort, 0, "continued")
    assert (mark["step"], mark["set_aside"]) == (10, [20])
    assert member.steps() == with_best(cohort, 0, 0, 1, 2, 4, 10, 20, 30)
    assert member.read_step(20).digest != superseded
    (kept,) = (member.folder / "steps").glob(".superseded-step-00000020*")
    assert superseded in (kept / "manifest.json").read_text()
    assert published(whole[0])["seed-0000, step 10"] == member.read_step(10).digest


def test_the_same_numerics_leave_no_mark(whole: tuple[Cohort, float]) -> None:
    assert not [row for seed in range(3) for row in rows_of_kind(whole[0], seed, "continued")]


def test_a_damaged_status_is_an_error_of_one_line(
    root: Path, whole: tuple[Cohort, float], capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = copy_of(whole[0], root)
    (cohort.member(1).folder / "status.json").write_text("{}")
    jobs = command.requests("train", TrainConfig, arguments(root, *STACK))
    assert jobs is not None
    assert train.outcome(jobs) == command.FAILED
    assert "seed 1: never started" not in capsys.readouterr().out
