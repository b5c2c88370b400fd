"""A cohort keeps the lengths that it was evaluated on, also one that was written before there was a key for them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cohorts import UNWATCHED, exit_status, jobs_of, memory_folder, published, snapshot, trained

from polymorph.cli import command
from polymorph.errors import RequestError
from polymorph.papers.mccann2026.facts import facts_of
from polymorph.store import Cohort
from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.dyck.task import Dyck
from polymorph.tasks.registry import spelled_out, task_of

SHORT = ("seed=0", UNWATCHED, "trainer.max_steps=4", "trainer.eval_every=2")
AS_BEFORE = "task.eval_max_length=62"


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def old(root: Path) -> Cohort:
    """As it was written before there was the key: neither file says anything of it."""
    cohort = trained(root, *SHORT, AS_BEFORE)
    for path in (cohort.folder / "cohort.json", cohort.member(0).folder / "config.json"):
        assert "max_length" in path.read_text()
        assert "eval_max_length" not in path.read_text()
    return cohort


def eval_max_length(cohort: Cohort) -> int:
    task = task_of(cohort)
    assert isinstance(task, Dyck)
    return task.config.eval_max_length


def test_an_old_cohort_is_read_as_it_was_evaluated(old: Cohort) -> None:
    assert eval_max_length(old) == 62
    assert facts_of(old)["task.eval_max_length"] == 62


def test_a_new_cohort_states_its_own(root: Path) -> None:
    cohort = trained(root, *SHORT)
    assert json.loads((cohort.folder / "cohort.json").read_text())["task"]["eval_max_length"] == 48
    assert eval_max_length(cohort) == facts_of(cohort)["task.eval_max_length"] == 48


def test_an_old_cohort_is_not_continued_with_other_lengths(root: Path, old: Cohort) -> None:
    before = snapshot(old.folder)
    with pytest.raises(RequestError, match=r"task\.eval_max_length: 62 there, 48 here; give the same"):
        jobs_of(root, *SHORT)
    assert snapshot(old.folder) == before


def test_a_new_cohort_is_not_continued_as_an_old_one(root: Path) -> None:
    trained(root, *SHORT)
    with pytest.raises(RequestError, match=r"task\.eval_max_length: 48 there, 62 here"):
        jobs_of(root, *SHORT, AS_BEFORE)


def test_an_old_cohort_takes_another_member_by_its_own_lengths(root: Path, old: Cohort) -> None:
    before = published(old)
    assert exit_status(root, "seed=[0,1]", *SHORT[1:], AS_BEFORE) == command.DONE
    assert before.items() <= published(old).items()
    assert old.member(1).config()["task"] == old.member(0).config()["task"]


@pytest.mark.parametrize("options", [{}, {"eval_max_length": 62}, {"max_length": 30}])
def test_what_is_left_unsaid_is_spelled_out_again(root: Path, options: dict[str, int]) -> None:
    cohort = trained(root, *SHORT, *(f"task.{key}={value}" for key, value in options.items()))
    assert spelled_out(cohort.identity)["task"] == vars(DyckConfig(**options))
