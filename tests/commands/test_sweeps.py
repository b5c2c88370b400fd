"""However the seeds are asked for, the same cohort folder gets the same members."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cohorts import (
    UNWATCHED,
    all_weights,
    arguments,
    cohort_in,
    equal,
    largest_difference,
    memory_folder,
    published,
    snapshot,
    status_of,
    trained,
)
from ended import REPOSITORY, Run

from polymorph.cli import command
from polymorph.store import Cohort

TOLERANCE = 2e-4  # design.md: stack against solo, after 50 steps


@pytest.fixture(scope="module")
def stack() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1]", UNWATCHED)


def started(root: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *overrides],
        cwd=root,
        env={**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_same_members(cohort: Cohort, stack: Cohort) -> None:
    assert [member.seed for member in cohort.members()][:2] == [0, 1]
    for seed in (0, 1):
        own, other = cohort.member(seed).folder, stack.member(seed).folder
        assert snapshot(own).keys() == snapshot(other).keys()
        assert (own / "config.json").read_bytes() == (other / "config.json").read_bytes()
        assert largest_difference(all_weights(cohort, seed), all_weights(stack, seed)) < TOLERANCE


def test_a_sweep_fills_the_same_folder(run: Run, root: Path, stack: Cohort) -> None:
    ended = run("train", "-m", *arguments(root, "seed=0,1", UNWATCHED))
    assert ended.status == command.DONE, ended
    cohort = cohort_in(root)
    check_same_members(cohort, stack)
    assert [status_of(cohort, seed).stack for seed in (0, 1)] == [(0,), (1,)]
    assert [path.name for path in root.iterdir()] == ["small"]


def test_single_commands_fill_the_same_folder(run: Run, root: Path, stack: Cohort) -> None:
    for seed in (0, 1):
        assert run("train", *arguments(root, f"seed={seed}", UNWATCHED)).status == command.DONE
    check_same_members(cohort_in(root), stack)


def test_a_stack_from_the_command_line_is_the_stack(run: Run, root: Path, stack: Cohort) -> None:
    ended = run("train", *arguments(root, "seed=[0,1]", UNWATCHED))
    assert ended.status == command.DONE, ended
    assert published(cohort_in(root)) == published(stack)


def test_stacks_in_a_sweep_are_stacks(run: Run, root: Path, stack: Cohort) -> None:
    ended = run("train", "-m", *arguments(root, "seed=[0,1],[2]", UNWATCHED))
    assert ended.status == command.DONE, ended
    cohort = cohort_in(root)
    assert [status_of(cohort, seed).stack for seed in range(3)] == [(0, 1), (0, 1), (2,)]
    for seed in (0, 1):
        assert equal(all_weights(cohort, seed), all_weights(stack, seed))


def test_a_sweep_again_leaves_everybody_alone(run: Run, root: Path) -> None:
    again = ("train", "-m", *arguments(root, "seed=0,1", UNWATCHED))
    run(*again)
    before = snapshot(root, "multirun.yaml")
    ended = run(*again)
    assert ended.status == command.DONE
    assert ended.out.count("left alone") == 2
    assert snapshot(root, "multirun.yaml") == before


def test_a_sweep_goes_on_after_a_job_that_failed(run: Run, root: Path) -> None:
    """A member whose log is a folder cannot be written to; the next one can."""
    trained(root, "seed=2", UNWATCHED)
    log = cohort_in(root).member(0).folder / "status.json"
    log.mkdir(parents=True)
    ended = run("train", "-m", *arguments(root, "seed=0,1", UNWATCHED))
    assert ended.status == command.FAILED
    assert "status.json" in ended.out + ended.err
    assert status_of(cohort_in(root), 1).state == "completed"


# Real processes.


def test_a_process_is_refused_with_two(root: Path) -> None:
    process = started(root, "trainer.max_step=3")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (command.WRONG, "")
    assert err.strip() == "train: trainer.max_step: there is no such key (did you mean 'trainer.max_steps'?)"
    assert not list(root.iterdir())


def test_a_process_that_is_asked_to_stop_ends_with_143(root: Path) -> None:
    overrides = arguments(root, "seed=[0,1]", UNWATCHED)
    long = [a for a in overrides if "max_steps" not in a] + ["trainer.max_steps=100000"]
    process = started(root, *long)
    while not (root / "small/members/seed-0001/status.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == command.PREEMPTED, (out, err)
    assert "preempted" in out
    cohort = cohort_in(root)
    assert {status_of(cohort, seed).state for seed in (0, 1)} == {"preempted"}


@pytest.mark.slow
def test_stacks_side_by_side_fill_the_same_folder(root: Path, stack: Cohort) -> None:
    overrides = arguments(
        root, "seed=[0,1],[2,3]", UNWATCHED, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    process = started(root, "-m", *overrides)
    out, err = process.communicate(timeout=280)
    assert process.returncode == command.DONE, (out, err)
    cohort = cohort_in(root)
    assert [member.seed for member in cohort.members()] == [0, 1, 2, 3]
    check_same_members(cohort, stack)
    again = started(root, "-m", *overrides)
    out, err = again.communicate(timeout=280)
    assert again.returncode == command.DONE
    assert (out + err).count("left alone") == 4
