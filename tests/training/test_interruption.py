"""SIGTERM: the state is saved at the next step, the exit status is 143, and the same command goes on."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cohorts import (
    CRASHED,
    UNWATCHED,
    after_step,
    cohort_in,
    converging,
    end_of,
    exit_status,
    memory_folder,
    published,
    signalled_after,
    slowed,
    start_child,
    status_of,
    trained,
)
from kills import KILLED, calls_of, check_kills

from polymorph.cli import command
from polymorph.store import Cohort, Member, files
from polymorph.training.interruption import interruptible
from polymorph.training.module import StackModule

STACK = ("seed=[0,1]", UNWATCHED)
CONVERGING = (*STACK, "trainer.convergence.patience=5")


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def whole() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, *STACK)


def started(root: Path) -> int:
    """A process that trains slowly, and has begun."""

    def action() -> int:
        with slowed(0.01):
            return exit_status(root, *STACK)

    child = start_child(action)
    status = root / "small" / "members" / "seed-0001" / "status.json"
    while not status.exists():
        time.sleep(0.005)
    return child


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(s, marks=pytest.mark.slow) for s in range(3, 13))]
)
def test_a_polite_end_at_a_random_time_leaves_no_trace(root: Path, whole: Cohort, seed: int) -> None:
    seconds = random.Random(seed).uniform(0, 0.2)  # of at least 0.3
    assert signalled_after(started(root), seconds, signal.SIGTERM) == command.PREEMPTED
    cohort = cohort_in(root)
    for member in (0, 1):
        status = status_of(cohort, member)
        assert (status.state, status.stack) == ("preempted", (0, 1))
        assert cohort.member(member).states()[-1] == status.step
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort) == published(whole)


def test_an_interrupt_at_the_keyboard_is_as_polite(root: Path, whole: Cohort) -> None:
    assert signalled_after(started(root), 0.05, signal.SIGINT) == command.PREEMPTED
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort_in(root)) == published(whole)


def terminate(module: StackModule) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def preempted_after(root: Path, step: int, *overrides: str) -> Cohort:
    def action() -> int:
        with after_step(step, terminate):
            return exit_status(root, *overrides)

    assert end_of(start_child(action)) == command.PREEMPTED
    return cohort_in(root)


@pytest.mark.parametrize("step", [7, 10])
def test_the_state_of_exactly_this_step_is_kept(root: Path, whole: Cohort, step: int) -> None:
    cohort = preempted_after(root, step, *STACK)
    assert [status_of(cohort, seed).step for seed in (0, 1)] == [step, step]
    assert [cohort.member(seed).states()[-1] for seed in (0, 1)] == [step, step]
    # A checkpoint is published at its own steps only, so it does not matter who was interrupted when.
    assert set(published(cohort)) - {f"seed-000{s}, state {step}" for s in (0, 1)} <= set(published(whole))
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort) == published(whole)


def test_asked_after_the_last_step_it_is_done(root: Path, whole: Cohort) -> None:
    def action() -> int:
        with after_step(30, terminate):
            return exit_status(root, *STACK)

    assert end_of(start_child(action)) == command.DONE
    assert published(cohort_in(root)) == published(whole)


HANDED_ON = 55


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_scheduler_gets_its_signal_once_the_state_is_saved(
    root: Path, whole: Cohort, number: signal.Signals
) -> None:
    """Its handler queues the job again and exits; were it called at once, the steps since would be lost."""

    def queue_again(signum: int, frame: object) -> None:
        cohort = cohort_in(root)
        saved = [status_of(cohort, seed).state == "preempted" for seed in (0, 1)]
        os._exit(HANDED_ON if all(saved) and signum == number else CRASHED)

    def action() -> int:
        signal.signal(number, queue_again)
        with after_step(7, lambda module: os.kill(os.getpid(), number)):
            return exit_status(root, *STACK)

    assert end_of(start_child(action)) == HANDED_ON
    assert [status_of(cohort_in(root), seed).step for seed in (0, 1)] == [7, 7]
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort_in(root)) == published(whole)


def test_a_schedulers_signal_that_nobody_else_handles_is_a_polite_end(root: Path) -> None:
    def action() -> int:
        with after_step(7, lambda module: os.kill(os.getpid(), signal.SIGUSR2)):
            return exit_status(root, *STACK)

    assert end_of(start_child(action)) == command.PREEMPTED
    assert status_of(cohort_in(root), 1).step == 7


def test_what_failed_is_not_queued_again() -> None:
    handed_on: list[int] = []

    def failing() -> None:
        with interruptible() as interruption:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert interruption.requested
            raise ValueError("failed")

    before = signal.signal(signal.SIGUSR2, lambda signum, frame: handed_on.append(signum))
    try:
        with pytest.raises(ValueError, match="failed"):
            failing()
        assert not handed_on
        with interruptible():
            os.kill(os.getpid(), signal.SIGUSR2)
            assert not handed_on
        assert handed_on == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_asked_while_publishing_it_publishes_whole(root: Path, whole: Cohort) -> None:
    """The handler only sets a flag, so a signal between any two calls of the store does no harm."""

    def action() -> int:
        sync = files.sync

        def interrupted(descriptor: int) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            sync(descriptor)

        def begin(module: StackModule) -> None:
            files.sync = interrupted

        with after_step(10, begin):
            return exit_status(root, *STACK)

    assert end_of(start_child(action)) == command.PREEMPTED
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort_in(root)) == published(whole)


def test_those_who_wait_for_the_donor_are_preempted_with_it(root: Path) -> None:
    shared = ("seed=[0,1]", UNWATCHED, "cohort=shared_io")
    cohort = preempted_after(root, 7, *shared)
    assert [status_of(cohort, seed).state for seed in (0, 1)] == ["preempted", "preempted"]
    assert not cohort.member(1).steps()
    assert exit_status(root, *shared) == command.DONE
    assert published(cohort) == published(trained(root / "whole", *shared))


def test_a_sweep_of_single_jobs_stops_at_the_job_that_was_asked(root: Path) -> None:
    def action() -> int:
        with after_step(7, terminate):
            return exit_status(root, "seed=0,1", UNWATCHED, "--multirun")

    assert end_of(start_child(action)) == command.PREEMPTED
    cohort = cohort_in(root)
    assert status_of(cohort, 0).state == "preempted"
    assert not cohort.member(1).steps()


# Kills at the end of members: between publishing and the status, where the least obvious states lie.


SHORT = (*CONVERGING, "trainer.max_steps=20", "trainer.eval_every=5")


def stride(root: Path, step: int, *overrides: str) -> range:
    """A few kills, spread over everything that follows the step and different for every step."""
    return range(step % 3, min(calls_of(root, step, converging(1), *overrides), 40), 13)


@pytest.mark.parametrize("step", [10, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_while_members_end_leave_no_trace(root: Path, step: int) -> None:
    """At step 10 member 1 ends 5 steps after it converged, and at step 20 the other one."""
    check_kills(root, step, converging(1), stride(root, step, *SHORT), *SHORT)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", [1, 10, 20])
def test_a_kill_at_any_call_while_members_end_leaves_no_trace(root: Path, step: int) -> None:
    check_kills(
        root, step, converging(1), range(min(60, calls_of(root, step, converging(1), *SHORT))), *SHORT
    )


def test_a_kill_while_the_first_checkpoint_is_published_keeps_the_stack(root: Path, whole: Cohort) -> None:
    """The first member has a state then and the second none: they still were one stack."""

    def action() -> None:
        publish = Member.publish_state

        def publish_state(self: Member, *arguments: Any) -> Any:
            if self.seed == 1:
                os._exit(KILLED)
            return publish(self, *arguments)

        with mock.patch.object(Member, "publish_state", publish_state):
            trained(root, *STACK)

    assert end_of(start_child(action)) == KILLED
    assert [cohort_in(root).member(seed).states() for seed in (0, 1)] == [[0], []]
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort_in(root)) == published(whole)


def test_one_kept_state_is_enough(root: Path) -> None:
    overrides = (*SHORT, "checkpoints.keep_states=1")
    check_kills(root, 10, converging(1), range(4, 30, 12), *overrides)
