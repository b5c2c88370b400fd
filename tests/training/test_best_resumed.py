"""No kill can tell which evaluation of a member was the best, and old states go on."""

import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cohorts import (
    after_step,
    cohort_in,
    copy_of,
    end_of,
    equal,
    exit_status,
    memory_folder,
    published,
    start_child,
    trained,
    weights_at,
    with_best,
)
from kills import calls_of, check_kills
from planned import CADENCE, PLAN, STACK, planned

from polymorph.cli import command
from polymorph.store import Cohort, Member
from polymorph.training import best, logging
from polymorph.training import run as run_module
from polymorph.training.module import StackModule


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def whole() -> Iterator[Cohort]:
    with memory_folder() as folder, planned():
        yield trained(folder, *STACK)


def halted_at(
    root: Path, step: int, *overrides: str, plan: Mapping[int, tuple[float, float]] = PLAN
) -> Cohort:
    def action() -> None:
        with planned(plan), after_step(step, lambda module: signal.raise_signal(signal.SIGKILL)):
            trained(root, *overrides)

    assert end_of(start_child(action)) == -signal.SIGKILL
    return cohort_in(root)


@pytest.mark.parametrize("step", [9, 14, 18, 24, 28])
def test_whatever_a_kept_state_calls_the_best_is_there(root: Path, step: int) -> None:
    cohort = halted_at(root, step, *STACK)
    for seed in (0, 1):
        member = cohort.member(seed)
        stated = [member.state_facts(at)[best.FACT] for at in member.states()]
        assert all(member.read_best(one["step"]).step == one["step"] for one in stated if one is not None)
        assert len(member.best_steps()) <= 3


@pytest.mark.parametrize("step", [5, 14, 18, 28])
def test_a_kill_leaves_no_trace(root: Path, whole: Cohort, step: int) -> None:
    halted_at(root, step, *STACK)
    with planned():
        assert exit_status(root, *STACK) == command.DONE
    assert published(cohort_in(root)) == published(whole)
    assert [cohort_in(root).member(seed).best_steps() for seed in (0, 1)] == [[25], [25]]


@pytest.mark.parametrize("step", [15, 30])
def test_kills_while_the_best_is_published_leave_no_trace(root: Path, step: int) -> None:
    """At step 15 a better one takes the place of an older one, and at step 30 the best gets its checkpoint."""
    calls = calls_of(root, step, planned(), *STACK)
    check_kills(root, step, planned(), range(step % 4, min(calls, 40), 6), *STACK)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", [5, 15, 25, 30])
def test_a_kill_at_any_call_leaves_no_trace(root: Path, step: int) -> None:
    check_kills(root, step, planned(), range(min(50, calls_of(root, step, planned(), *STACK))), *STACK)


def test_a_better_one_after_the_state_stays_under_equal_numerics(root: Path, whole: Cohort) -> None:
    cohort = halted_at(root, 18, *STACK)
    ahead = cohort.member(0).read_best(15).digest
    assert cohort.member(0).states()[-1] == 10
    seen = []

    def look(module: StackModule) -> None:
        seen.append(cohort.member(0).read_best(15).digest)

    with planned(), after_step(12, look):
        assert exit_status(root, *STACK) == command.DONE
    assert seen == [ahead]


def other_numerics(monkeypatch: pytest.MonkeyPatch) -> None:
    original = run_module.numerics
    monkeypatch.setattr(run_module, "numerics", lambda *a: {**original(*a), "threads": 2})


def test_under_other_numerics_it_is_refused_or_gives_way(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = halted_at(root, 18, *STACK)
    other_numerics(monkeypatch)
    with planned():
        assert exit_status(root, *STACK) == command.FAILED
    assert "threads: 1 there, 2 here" in capsys.readouterr().out
    assert cohort.member(0).best_steps() == [5, 15]
    with planned({}):  # nothing better comes, so the best up to the state is the best of all
        assert exit_status(root, *STACK, "trainer.allow_other_numerics=true") == command.DONE
    for seed in (0, 1):
        member = cohort.member(seed)
        assert member.best_steps() == [5]
        assert member.steps() == with_best(cohort, seed, *CADENCE)
        assert member.read_step(5).manifest.facts["numerics"]["threads"] == 1


def test_under_other_numerics_the_same_step_may_be_the_best_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published ahead is out of the way by then: it is another one."""
    cohort = halted_at(root, 18, *STACK)
    ahead = cohort.member(0).read_best(15).digest
    other_numerics(monkeypatch)
    with planned({15: (0.9, 1.0)}):
        assert exit_status(root, *STACK, "trainer.allow_other_numerics=true") == command.DONE
    assert cohort.member(0).best_step() == 15
    assert cohort.member(0).read_best().digest != ahead


def without_best(root: Path, step: int, *overrides: str) -> Cohort:
    """Killed after this step, by a program that knew nothing of best evaluations."""
    original = Member.publish_state

    def publish_state(self: Member, at: int, tensors: Any, facts: Mapping[str, Any]) -> Any:
        return original(self, at, tensors, {key: own for key, own in facts.items() if key != best.FACT})

    def action() -> None:
        with (
            mock.patch.object(Member, "publish_state", publish_state),
            mock.patch.object(logging, "evaluated", return_value=[]),
            after_step(step, lambda module: signal.raise_signal(signal.SIGKILL)),
        ):
            trained(root, *overrides)

    assert end_of(start_child(action)) == -signal.SIGKILL
    return cohort_in(root)


@pytest.mark.parametrize("behind", [False, True])
def test_an_old_state_goes_on_and_the_best_begins_there(
    root: Path, whole: Cohort, capsys: pytest.CaptureFixture[str], behind: bool
) -> None:
    """Also where one member was killed before it had kept what its sibling had kept already."""
    cohort = without_best(root, 24, *STACK)
    after = 20
    if behind:
        for folder in ("steps", "state"):
            shutil.rmtree(cohort.member(1).folder / folder / "step-00000020")
        after = 10
    with planned({**PLAN, 25: (0.1, 9.0), 30: (0.0, 9.0)}):
        assert exit_status(root, *STACK) == command.DONE
    said = capsys.readouterr().out
    for seed in (0, 1):
        assert f"the best evaluation of seed-000{seed} is sought from step {after} on" in said
        assert cohort.member(seed).best_step() == (15 if behind else 25)
        assert equal(weights_at(cohort, seed), weights_at(whole, seed))


def test_new_states_say_nothing_of_that(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halted_at(root, 24, *STACK)
    with planned():
        assert exit_status(root, *STACK) == command.DONE
    assert "sought" not in capsys.readouterr().out


def test_an_old_first_state_is_no_obstacle(root: Path, whole: Cohort) -> None:
    cohort = without_best(root, 1, *STACK)
    shutil.rmtree(cohort.member(1).folder / "state")
    with planned():
        assert exit_status(root, *STACK) == command.DONE
    assert [cohort.member(seed).best_step() for seed in (0, 1)] == [25, 25]
    assert equal(weights_at(cohort, 0), weights_at(whole, 0))


def test_damaged_weights_of_the_best_are_named_and_another_is_sought(
    root: Path, whole: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = halted_at(root, 24, *STACK)
    path = cohort.member(1).folder / "best" / "step-00000015" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with planned({25: (0.6, 1.0), 30: (0.5, 1.0)}):
        assert exit_status(root, *STACK) == command.DONE
    said = capsys.readouterr().out
    assert "the best evaluation of seed-0001 is sought from step 20 on: " in said
    assert "seed-0001/best/step-00000015/weights.safetensors" in said
    assert "seed-0000 is sought" not in said
    assert [cohort.member(seed).best_step() for seed in (0, 1)] == [15, 25]
    assert equal(weights_at(cohort, 1), weights_at(whole, 1))


def test_drafts_of_the_dead_are_swept(root: Path, whole: Cohort) -> None:
    cohort = copy_of(whole, root)
    draft = cohort.member(0).folder / "best" / ".draft-gone"
    draft.mkdir()
    with mock.patch("polymorph.store.leftovers._is_leftover", return_value=True):
        assert cohort.member(0).sweep() == [".draft-gone"]
    assert not draft.exists()
