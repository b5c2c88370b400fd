"""A cohort that version 0.1.0 wrote opens as it is, is compared anew, and trains on.

`tests/data/v010` has two completed members with the rows of their pairs, and a third that was stopped half way.
"""

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from tests.training.cohorts import exit_status, jobs_of

from polymorph.errors import RequestError
from polymorph.evidence.rows import table
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.pair_cache import PairCache
from polymorph.pipeline.pair_studies import LADDER
from polymorph.store import Cohort
from polymorph.studies.registry import STUDIES

WRITTEN = Path(__file__).parents[1] / "data" / "v010"
AS_IT_BEGAN = (
    "experiment=quick cohort.name=v010 trainer.max_steps=40 trainer.batch_size=8 trainer.eval_every=20 "
    "trainer.eval_sequences=16 checkpoints.every=20 checkpoints.powers_until=0 checkpoints.keep_states=1 "
    "probe.fit=32 probe.eval=32 model.n_layers=1 model.d_model=8 model.n_heads=2 model.d_head=4 model.d_mlp=8 "
    "logger=none trainer.length_groups=16 trainer.log_every=50 optimizer.warmup_steps=200 "
    "callbacks.cross_seed.enabled=false seed=2"
)

OF_ITS_TIME = ("task.eval_max_length=62",)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(WRITTEN, tmp_path / "v010")
    return tmp_path


def last_rows(cohort: Cohort) -> pl.DataFrame:
    comparison = Comparison.of(cohort, torch.device("cpu"))
    found = PairCache(comparison).rows(LADDER, comparison.pairs_at(40, [0, 1]))
    assert found.left_out == []
    return table(found.rows, STUDIES["ladder"].columns).sort(pl.all())


def test_every_file_of_it_is_verified(root):
    members = Cohort.open(root / "v010").members()
    assert [(member.seed, member.steps()) for member in members] == [
        (0, [0, 20, 40]),
        (1, [0, 20, 40]),
        (2, [0, 20]),
    ]
    for member in members:
        assert all(member.read_step(step).weights for step in member.steps())
        assert [member.read_state(step) for step in member.states()]
    assert [member.status().state for member in members] == ["completed", "completed", "preempted"]


def test_its_rows_are_those_that_are_computed_now(root):
    """Whether rows of before are taken or made again: a definition that has changed since changes their key."""
    shutil.copytree(root / "v010", root / "anew", ignore=shutil.ignore_patterns("pairs"))
    old, new = (last_rows(Cohort.open(root / name)) for name in ("v010", "anew"))
    assert len(old) > 0
    assert_frame_equal(
        old.drop("cohort"), new.drop("cohort"), check_row_order=False, rel_tol=1e-4, abs_tol=1e-4
    )


def test_its_stopped_member_goes_on_where_other_numerics_are_allowed(root):
    """Its state says less of them than states say now, and may be of another processor."""
    exit_status(root, *AS_IT_BEGAN.split(), *OF_ITS_TIME, "trainer.allow_other_numerics=true")
    member = Cohort.open(root / "v010").member(2)
    assert member.status().state == "completed"
    assert member.steps()[-1] == 40


def test_it_does_not_go_on_unasked(root):
    exit_status(root, *AS_IT_BEGAN.split(), *OF_ITS_TIME)
    member = Cohort.open(root / "v010").member(2)
    assert member.status().state == "failed"
    assert member.steps() == [0, 20]


def test_it_is_not_taken_for_a_cohort_of_todays_defaults(root):
    with pytest.raises(RequestError, match=r"eval_max_length: 62 there, 48 here"):
        jobs_of(root, *AS_IT_BEGAN.split())
