"""The best evaluation of a member: which one it is, and that its weights are kept."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cohorts import (
    after_step,
    cohort_in,
    equal,
    exit_status,
    memory_folder,
    rows_of_kind,
    status_of,
    trained,
    weights_at,
)
from planned import CADENCE, OFTEN, STACK, planned

from polymorph.cli import command, train_logging
from polymorph.store import Cohort, CorruptError, Member
from polymorph.tracking.loggers import Breaker
from polymorph.tracking.runs import RunLogger
from polymorph.training.best import Evaluated, evaluated
from polymorph.training.module import StackModule


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def whole() -> Iterator[Cohort]:
    with memory_folder() as folder, planned():
        yield trained(folder, *STACK)


# Which evaluation is the best.


def test_a_larger_least_accuracy_is_better_whatever_the_loss() -> None:
    assert Evaluated(2, 0.9, 5.0).beats(Evaluated(1, 0.8, 0.1))
    assert not Evaluated(2, 0.8, 0.1).beats(Evaluated(1, 0.9, 5.0))


def test_the_loss_decides_between_equal_accuracies_and_the_earlier_between_equals() -> None:
    assert Evaluated(2, 0.9, 0.1).beats(Evaluated(1, 0.9, 0.2))
    assert not Evaluated(2, 0.9, 0.2).beats(Evaluated(1, 0.9, 0.1))
    assert not Evaluated(2, 0.9, 0.1).beats(Evaluated(1, 0.9, 0.1))
    assert Evaluated(2, 0.0, 9.0).beats(None)


def metrics_of(*losses: float) -> dict[str, torch.Tensor]:
    """Two distributions and two heads; the losses of a member are those of the first one doubled and tripled."""
    loss = torch.tensor(losses, dtype=torch.float64)
    found = {}
    for at, distribution in enumerate(("near", "far")):
        for head, times in (("tok", 1), ("depth", 2)):
            found[f"{distribution}/loss/{head}"] = times * loss + at
            found[f"{distribution}/accuracy/{head}"] = torch.full_like(loss, 0.9 - 0.1 * at - 0.01 * times)
    return found


def test_the_loss_is_summed_over_heads_and_averaged_over_distributions() -> None:
    one, other = evaluated(7, metrics_of(1.0, 2.0))
    assert one is not None
    assert other is not None
    assert (one.step, one.least_accuracy, one.loss) == (7, pytest.approx(0.78), pytest.approx(1.5 + 2.5))
    assert other.loss == pytest.approx(2.5 + 4.5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_evaluation_that_is_not_finite_is_none(bad: float) -> None:
    found = evaluated(7, metrics_of(1.0, bad))
    assert found[0] == evaluated(7, metrics_of(1.0))[0]
    assert found[1] is None


def best_by_rows(cohort: Cohort, seed: int) -> tuple[int, float, float]:
    """Step, least accuracy and loss, as a reader of the log would find them."""
    found = []
    for row in rows_of_kind(cohort, seed, "evaluation"):
        accuracies = [value for key, value in row.items() if "/accuracy/" in key]
        losses = [value for key, value in row.items() if "/loss/" in key]
        found.append((min(accuracies), -sum(losses) / 3, -row["step"]))
    accuracy, loss, step = max(found)
    return -step, accuracy, -loss


def test_every_member_of_a_stack_keeps_its_own_best(root: Path) -> None:
    cohort = trained(root, "seed=[0,1,2,3]", *OFTEN)
    for seed in range(4):
        (row,) = rows_of_kind(cohort, seed, "best")
        found = (row["step"], row["least_accuracy"], row["loss"])
        assert found == pytest.approx(best_by_rows(cohort, seed), abs=1e-12)
        assert cohort.member(seed).best_step() == row["step"]
    steps = [cohort.member(seed).best_step() for seed in range(4)]
    assert len(set(steps)) > 1  # or one for all would have passed


# What is kept.


def test_a_completed_member_has_a_checkpoint_at_its_best(root: Path, whole: Cohort) -> None:
    dense = trained(root, *STACK, "checkpoints.every=5")
    for seed in (0, 1):
        member = whole.member(seed)
        assert member.best_step() == 25
        assert member.steps() == [0, 1, 2, 4, 10, 20, 25, 30]
        assert equal(weights_at(whole, seed, 25), member.read_best().weights)
        assert equal(weights_at(whole, seed, 25), weights_at(dense, seed, 25))
        assert not equal(weights_at(whole, seed, 25), weights_at(dense, seed, 20))
        assert member.best_steps() == [25]


def test_a_best_at_a_step_of_the_cadence_is_that_checkpoint(root: Path) -> None:
    with planned({20: (0.5, 1.0), 30: (0.4, 1.0)}):
        cohort = trained(root / "one", "seed=0", *OFTEN)
    other = trained(root / "other", "seed=0", *OFTEN)
    member = cohort.member(0)
    assert (member.best_step(), member.steps()) == (20, list(CADENCE))
    assert member.read_step(20).digest == other.member(0).read_step(20).digest
    assert equal(member.read_best().weights, weights_at(cohort, 0, 20))


def test_only_what_is_better_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    original = Member.publish_best

    def publish_best(self: Member, step: int, *arguments: Any) -> Any:
        written.append(step)
        return original(self, step, *arguments)

    monkeypatch.setattr(Member, "publish_best", publish_best)
    with planned():
        trained(root, "seed=0", *OFTEN)
    assert written == [5, 15, 25]


def test_the_end_names_it(whole: Cohort) -> None:
    for seed in (0, 1):
        reason = "all steps taken; best evaluation at step 25: least accuracy 0.7, loss 1.5"
        assert status_of(whole, seed).reason == reason
        (row,) = rows_of_kind(whole, seed, "best")
        assert row == {"kind": "best", "step": 25, "least_accuracy": 0.7, "loss": 1.5}


def test_the_run_of_the_member_has_it_in_its_summary(root: Path, whole: Cohort) -> None:
    summary: dict[str, Any] = {}
    run = SimpleNamespace(summary=summary, define_metric=lambda *a, **k: None)
    train_logging._name_best(Breaker(RunLogger(run, root), lambda code: None), whole, 0)
    assert summary == {"best/step": 25, "best/least_accuracy": 0.7, "best/loss": 1.5}


def test_without_a_finite_evaluation_there_is_none(root: Path) -> None:
    with planned({}):
        cohort = trained(root, "seed=0", *OFTEN)
    member = cohort.member(0)
    assert member.best_step() is None
    assert not (member.folder / "best").exists()
    assert status_of(cohort, 0).reason == "all steps taken"
    assert not rows_of_kind(cohort, 0, "best")
    with pytest.raises(CorruptError, match="no best evaluation"):
        member.read_best()


def test_weights_that_are_not_finite_are_never_the_best(root: Path) -> None:
    """No evaluation meets a word that is not in use, so only the weights themselves can tell."""

    def spoil(module: StackModule) -> None:
        with torch.no_grad():
            dict(module.stack.named_member_parameters())["W_E"][0, 39, 0] = float("inf")

    with planned(), after_step(12, spoil):
        assert exit_status(root, *STACK) == command.FAILED
    cohort = cohort_in(root)
    assert status_of(cohort, 0).state == "diverged"
    assert cohort.member(0).best_step() == 5
    assert 5 not in cohort.member(0).steps()
    assert status_of(cohort, 0).reason.endswith("; best evaluation at step 5: least accuracy 0.5, loss 3")
    assert cohort.member(1).best_step() == 25
