"""Members are the same alone and in a stack, stop when they have converged, and take what a donor gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cohorts import (
    UNWATCHED,
    all_weights,
    converging,
    equal,
    exit_status,
    jobs_of,
    largest_difference,
    memory_folder,
    rows_of_kind,
    snapshot,
    status_of,
    trained,
    weights_at,
    with_best,
)

from polymorph.cli import command
from polymorph.errors import RequestError
from polymorph.models.dyck_transformer.config import FINAL_GAIN, IO_PARAMETERS
from polymorph.store import Cohort, Status

TOLERANCE = 2e-4  # design.md: stack against solo, after 50 steps


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def stack() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1]", UNWATCHED)


# Alone and in a stack.


@pytest.fixture(scope="module")
def alone() -> Iterator[Cohort]:
    with memory_folder() as folder:
        trained(folder, "seed=0", UNWATCHED)
        yield trained(folder, "seed=1", UNWATCHED)


def test_alone_and_stacked_leave_the_same_files(stack: Cohort, alone: Cohort) -> None:
    assert snapshot(alone.folder).keys() == snapshot(stack.folder).keys()
    for seed in (0, 1):
        config = (stack.member(seed).folder / "config.json").read_bytes()
        assert (alone.member(seed).folder / "config.json").read_bytes() == config


def test_alone_and_stacked_have_the_same_weights(stack: Cohort, alone: Cohort) -> None:
    for seed in (0, 1):
        assert equal(weights_at(alone, seed, 0), weights_at(stack, seed, 0))
        assert largest_difference(all_weights(alone, seed), all_weights(stack, seed)) < TOLERANCE
    # A tolerance that other members would not meet.
    assert largest_difference(weights_at(stack, 0), weights_at(stack, 1)) > 100 * TOLERANCE


def test_alone_and_stacked_log_the_same_rows(stack: Cohort, alone: Cohort) -> None:
    for seed in (0, 1):
        for kind in ("train", "evaluation"):
            one, other = rows_of_kind(stack, seed, kind), rows_of_kind(alone, seed, kind)
            assert [row["step"] for row in one] == [row["step"] for row in other]
            assert [row.keys() for row in one] == [row.keys() for row in other]
            for a, b in zip(one, other, strict=True):
                losses = [key for key in a if "/loss" in key]
                assert losses
                assert all(a[key] == pytest.approx(b[key], abs=1e-3) for key in losses)


# Early stop.

EVALUATED = ("trainer.eval_every=5", "trainer.convergence.patience=7", UNWATCHED)


def test_everybody_stops_when_everybody_has_converged(root: Path) -> None:
    cohort = trained(root, "seed=[0,1]", "trainer.convergence.accuracy=0.0", *EVALUATED)
    for seed in (0, 1):
        status = status_of(cohort, seed)
        assert (status.state, status.step) == ("completed", 12)
        assert status.reason.startswith("converged at step 5; best evaluation at step ")
        assert cohort.member(seed).steps() == with_best(cohort, seed, 0, 1, 2, 4, 10, 12)


def test_one_that_has_converged_leaves_and_the_others_go_on(root: Path, stack: Cohort) -> None:
    with converging(1):
        cohort = trained(root, "seed=[0,1,2]", *EVALUATED)
    assert [(s, status_of(cohort, s).step) for s in range(3)] == [(0, 30), (1, 12), (2, 30)]
    assert {status_of(cohort, seed).state for seed in range(3)} == {"completed"}
    assert cohort.member(1).steps()[-1] == 12
    # The stack was rebuilt at that step, which is marked, and published no step of its own there.
    for seed in (0, 2):
        assert cohort.member(seed).steps() == with_best(cohort, seed, 0, 1, 2, 4, 10, 20, 30)
        assert status_of(cohort, seed).stack == (0, 2)
        (mark,) = rows_of_kind(cohort, seed, "continued")
        assert (mark["step"], mark["before"]["stack"], mark["now"]["stack"]) == (12, [0, 1, 2], [0, 2])
    assert largest_difference(weights_at(cohort, 0), weights_at(stack, 0)) < TOLERANCE


def test_patience_ends_with_the_schedule(root: Path) -> None:
    late = ("trainer.eval_every=25", "trainer.convergence.patience=1000", UNWATCHED)
    cohort = trained(root, "seed=0", "trainer.convergence.accuracy=0.0", *late)
    assert status_of(cohort, 0).step == 30
    assert status_of(cohort, 0).reason.startswith("converged at step 25; best evaluation at step ")


# A donor.

SHARED = ("cohort=shared_io", UNWATCHED)


@pytest.fixture(scope="module")
def shared() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1,2]", "cohort.donor=1", *SHARED)


def test_a_stack_trains_its_donor_first(shared: Cohort) -> None:
    assert {status_of(shared, seed).state for seed in range(3)} == {"completed"}
    assert [status_of(shared, seed).stack for seed in range(3)] == [(0, 2), (1,), (0, 2)]


def test_members_carry_what_the_donor_ended_with(shared: Cohort) -> None:
    given = weights_at(shared, 1)
    for seed in (0, 2):
        for step in shared.member(seed).steps():
            own = weights_at(shared, seed, step)
            for name in IO_PARAMETERS:
                assert torch.equal(own[name], given[name]), f"{name} of seed {seed} at step {step}"
    # It moved itself, and what is not shared moves in all.
    assert not torch.equal(weights_at(shared, 1, 0)["W_E"], given["W_E"])
    trainable = [name for name in given if name not in IO_PARAMETERS]
    for seed in (0, 2):
        start, end = weights_at(shared, seed, 0), weights_at(shared, seed)
        assert not any(torch.equal(start[name], end[name]) for name in trainable)


def test_the_final_gain_is_free(shared: Cohort) -> None:
    for seed in (0, 2):
        assert torch.equal(weights_at(shared, seed, 0)[FINAL_GAIN], torch.ones(16))
        assert not torch.equal(weights_at(shared, seed)[FINAL_GAIN], weights_at(shared, 1)[FINAL_GAIN])


def test_the_final_gain_is_frozen_on_request(root: Path) -> None:
    cohort = trained(root, "seed=[0,1]", "cohort.freeze_final_gain=true", *SHARED)
    given = weights_at(cohort, 0)[FINAL_GAIN]
    for step in cohort.member(1).steps():
        assert torch.equal(weights_at(cohort, 1, step)[FINAL_GAIN], given)


def test_the_donor_is_the_member_that_it_would_be_anyway(shared: Cohort, alone: Cohort) -> None:
    assert equal(all_weights(shared, 1), all_weights(alone, 1))


def test_a_donor_of_before_serves_later_members(root: Path, shared: Cohort) -> None:
    trained(root, "seed=1", "cohort.donor=1", *SHARED)
    cohort = trained(root, "seed=[0,2]", "cohort.donor=1", *SHARED)
    for seed in range(3):
        assert equal(all_weights(cohort, seed), all_weights(shared, seed))


@pytest.mark.parametrize("there", [False, True])
def test_a_donor_that_has_not_finished_is_refused(root: Path, there: bool) -> None:
    if there:
        cohort = trained(root, "seed=0", "cohort.donor=0", *SHARED)
        cohort.member(0).set_status(Status("preempted", 20))
    before = snapshot(root)
    with pytest.raises(RequestError, match=r"cohort\.donor=0: seed-0000 .* a donor must have finished"):
        jobs_of(root, "seed=1", *SHARED)
    assert snapshot(root) == before


def test_a_donor_in_another_job_of_the_sweep_serves(root: Path) -> None:
    assert exit_status(root, "seed=0,1", *SHARED, "--multirun") == command.DONE


def test_a_donor_in_a_later_job_of_the_sweep_is_refused(root: Path) -> None:
    with pytest.raises(RequestError, match=r"cohort\.donor=0"):
        jobs_of(root, "seed=1,0", *SHARED, "--multirun")
    assert not snapshot(root)
