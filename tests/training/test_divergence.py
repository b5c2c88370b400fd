"""What happens to one member, to the disk or to the comparison stays there (invariants I4 and I5)."""

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cohorts import (
    UNWATCHED,
    after_step,
    all_weights,
    cohort_in,
    exit_status,
    memory_folder,
    published,
    rows_of_kind,
    snapshot,
    status_of,
    trained,
    weights_at,
)

from polymorph.cli import command
from polymorph.pipeline.pair_cache import PairCache
from polymorph.store import Cohort, files
from polymorph.training.module import StackModule

STACK = ("seed=[0,1,2]", UNWATCHED)
VICTIM = 1
LARGE = 8000  # bytes; of all that a member writes only weights and states are larger


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def whole() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, *STACK)


def own_part(cohort: Cohort, *seeds: int) -> dict[str, str]:
    return {key: value for key, value in published(cohort).items() if int(key[5:9]) in seeds}


# Numbers that are not finite.


def spoil_weights(value: float) -> Callable[[StackModule], None]:
    def spoil(module: StackModule) -> None:
        with torch.no_grad():
            dict(module.stack.named_member_parameters())["blocks.0.mlp.W_in"][VICTIM, 0, 0] = value

    return spoil


def spoil_gradients_at(step: int) -> Any:
    """The gradient of the victim is NaN in the step after `step`."""

    def spoil(module: StackModule) -> None:
        parameter = dict(module.stack.named_member_parameters())["W_E"]

        def once(gradient: torch.Tensor) -> torch.Tensor:
            handle.remove()
            bad = torch.zeros_like(gradient)
            bad[VICTIM] = float("nan")
            return gradient + bad

        handle = parameter.register_hook(once)

    return after_step(step, spoil)


def check_that_only_the_victim_diverged(cohort: Cohort, whole: Cohort, after: int) -> None:
    status = status_of(cohort, VICTIM)
    kept = [step for step in (0, 1, 2, 4, 10, 20, 30) if step < after]
    noticed = next(step for step in (1, 2, 4, 10, 20, 30) if step >= after)
    assert (status.state, status.step) == ("diverged", noticed)
    assert f"last finite checkpoint is step {kept[-1]}" in status.reason
    assert cohort.member(VICTIM).steps() == kept
    last = f"seed-000{VICTIM}, step {kept[-1]}"
    assert published(cohort)[last] == published(whole)[last]
    assert all(bool(torch.isfinite(w).all()) for w in all_weights(cohort, VICTIM).values())
    assert own_part(cohort, 0, 2) == own_part(whole, 0, 2)
    assert {status_of(cohort, seed).state for seed in (0, 2)} == {"completed"}


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_weights_that_are_not_finite_harm_nobody_else(root: Path, whole: Cohort, value: float) -> None:
    step = random.Random(str(value)).randrange(1, 30)
    with after_step(step, spoil_weights(value)):
        assert exit_status(root, *STACK) == command.FAILED
    check_that_only_the_victim_diverged(cohort_in(root), whole, step)


@pytest.mark.parametrize("step", [1, 29])
def test_gradients_that_are_not_finite_harm_nobody_else(root: Path, whole: Cohort, step: int) -> None:
    with spoil_gradients_at(step):
        assert exit_status(root, *STACK) == command.FAILED
    check_that_only_the_victim_diverged(cohort_in(root), whole, step + 1)


def test_one_that_diverged_is_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with after_step(13, spoil_weights(float("nan"))):
        exit_status(root, *STACK)
    before = snapshot(root)
    capsys.readouterr()
    assert exit_status(root, *STACK) == command.FAILED
    assert "seed-0001: diverged at step 20" in capsys.readouterr().out
    assert snapshot(root) == before


def test_a_stack_that_diverged_as_a_whole_ends(root: Path) -> None:
    def spoil(module: StackModule) -> None:
        for parameter in module.stack.parameters():
            parameter.data.fill_(float("nan"))

    with after_step(3, spoil):
        assert exit_status(root, *STACK) == command.FAILED
    cohort = cohort_in(root)
    assert {status_of(cohort, seed).state for seed in range(3)} == {"diverged"}
    assert [len(rows_of_kind(cohort, seed, "train")) for seed in range(3)] == [0, 0, 0]  # none after step 4


def test_diverged_members_are_not_compared(root: Path) -> None:
    with after_step(13, spoil_weights(float("nan"))):
        cohort = trained(root, "seed=[0,1,2]", "checkpoints.powers_until=0", "checkpoints.every=15")
    assert not [row for seed in range(3) for row in rows_of_kind(cohort, seed, "comparison failure")]
    pairs = {path.name for path in cohort.pairs.folder.iterdir()}
    assert "seed-0000--seed-0002" in pairs


# A full disk.


def full_disk(monkeypatch: pytest.MonkeyPatch, above: int) -> Callable[[StackModule], None]:
    """From now on nothing larger than `above` bytes can be written."""
    original = files.write

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) > above:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(descriptor, data)

    return lambda module: monkeypatch.setattr(files, "write", write)


def test_a_full_disk_is_recorded_and_loses_nothing(
    root: Path, whole: Cohort, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, after_step(13, full_disk(patch, LARGE)):
        assert exit_status(root, *STACK) == command.FAILED
    cohort = cohort_in(root)
    for seed in range(3):
        status = status_of(cohort, seed)
        assert (status.state, status.step) == ("no_space", 10)
        assert "No space left on device" in status.reason
        assert cohort.member(seed).steps() == [0, 1, 2, 4, 10]
    assert not list(root.rglob(".draft*"))
    assert published(cohort).items() <= published(whole).items() | own_states(cohort)
    # With space again, the same command goes on as if nothing had been.
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort) == published(whole)
    assert "Traceback" not in capsys.readouterr().out


def own_states(cohort: Cohort) -> set[tuple[str, str]]:
    return {(key, value) for key, value in published(cohort).items() if "state" in key}


def test_a_disk_without_room_for_a_status_says_so(
    root: Path, whole: Cohort, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, after_step(13, full_disk(patch, 0)):
        assert exit_status(root, *STACK) == command.FAILED
    said = capsys.readouterr().out
    assert "no_space" in said or "No space left on device" in said
    assert "its state could not be recorded" in said
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort_in(root)) == published(whole)


def test_running_out_of_memory_is_recorded(root: Path, whole: Cohort) -> None:
    def exhaust(module: StackModule) -> None:
        raise MemoryError("there is no more")

    with after_step(13, exhaust):
        assert exit_status(root, *STACK) == command.FAILED
    assert {status_of(cohort_in(root), seed).state for seed in range(3)} == {"out_of_memory"}
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort_in(root)) == published(whole)


def test_whatever_else_happens_is_recorded_with_its_reason(root: Path, whole: Cohort) -> None:
    def fail(module: StackModule) -> None:
        raise ZeroDivisionError("of all things")

    with after_step(13, fail):
        assert exit_status(root, *STACK) == command.FAILED
    status = status_of(cohort_in(root), 0)
    assert (status.state, status.reason) == ("failed", "ZeroDivisionError: of all things")
    (row,) = rows_of_kind(cohort_in(root), 0, "failure")
    assert "Traceback" in row["traceback"]
    assert exit_status(root, *STACK) == command.DONE
    assert published(cohort_in(root)) == published(whole)


# The comparison.

FEW = ("checkpoints.powers_until=0", "checkpoints.every=15")


def test_the_comparison_does_not_change_what_it_watches(root: Path) -> None:
    watched = trained(root / "on", "seed=[0,1]", *FEW)
    unwatched = trained(root / "off", "seed=[0,1]", *FEW, UNWATCHED)
    assert published(watched) == published(unwatched)
    assert list(watched.pairs.folder.iterdir())
    assert not unwatched.pairs.folder.exists()


def test_a_comparison_that_fails_is_recorded_and_stops_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        torch.manual_seed(99)
        raise RuntimeError("no comparison today")

    monkeypatch.setattr(PairCache, "rows", fail)
    watched = trained(root / "on", "seed=[0,1]", *FEW)
    unwatched = trained(root / "off", "seed=[0,1]", *FEW, UNWATCHED)
    assert published(watched) == published(unwatched)
    for seed in (0, 1):
        assert status_of(watched, seed).state == "completed"
        found = rows_of_kind(watched, seed, "comparison failure")
        assert [row["step"] for row in found] == [0, 15, 30]
        assert all("no comparison today" in row["traceback"] for row in found)


def test_a_damaged_sibling_is_named_and_stops_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = trained(root, "seed=[0,1]", *FEW, UNWATCHED)
    path = cohort.member(0).folder / "steps" / "step-00000015" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert exit_status(root, "seed=2", *FEW) == command.DONE
    assert "seed-0000/steps/step-00000015" in capsys.readouterr().out
    both = {p.name for p in cohort.pairs.folder.iterdir()}
    assert {"seed-0000--seed-0002", "seed-0001--seed-0002"} <= both
    # The healthy sibling was compared at every step, the damaged one at its other two.
    assert len(list((cohort.pairs.folder / "seed-0001--seed-0002").iterdir())) == 3
    assert len(list((cohort.pairs.folder / "seed-0000--seed-0002").iterdir())) == 2


def test_the_weights_of_a_run_are_finite(whole: Cohort) -> None:
    assert all(bool(torch.isfinite(value).all()) for value in weights_at(whole, 0).values())
