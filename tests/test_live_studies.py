"""Pairing tests and regimes beside training: once a pair, by whoever comes second; no fault of theirs costs it."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest
import torch

sys.path.append(
    str(Path(__file__).resolve().parent / "training")
)  # for the small cohorts, which are made there

from cohorts import UNWATCHED, memory_folder, rows_of_kind, trained

from polymorph.alignment.families import FAMILIES
from polymorph.errors import RequestError
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import LIVE, Row
from polymorph.pipeline import pair_studies
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.comparison_rows import ComparisonRows
from polymorph.pipeline.pair_cache import PairCache
from polymorph.pipeline.pair_studies import BRIEF, BRIEF_STUDIES, LADDER, Brief
from polymorph.steering.request import Steering
from polymorph.store import Cohort, Member
from polymorph.tracking.charts import metrics_of

LARGER = ("probe.fit=64", "probe.eval=64", "trainer.max_steps=10")


@pytest.fixture(scope="module")
def cohort() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1,2]", UNWATCHED, *LARGER)


def opened(cohort: Cohort) -> Comparison:
    said: list[str] = []
    comparison = Comparison.of(cohort, torch.device("cpu"))
    comparison.say = said.append
    return comparison


def rows_of(comparison: Comparison, study: Brief, pairs: Sequence[PairLabel]) -> list[Row]:
    return PairCache(comparison).rows(study, pairs).rows


def with_rows(name: str, made: Callable[..., Any]) -> Brief:
    """A brief study of the same key, whose rows are made in another way."""
    return replace(BRIEF_STUDIES[name], made=made)


def never(*_: object) -> NoReturn:
    pytest.fail("computed again")


def test_a_pair_is_computed_once_and_read_by_everybody_after(cohort: Cohort) -> None:
    pairs = opened(cohort).pairs_at(10)
    rows = rows_of(opened(cohort), BRIEF_STUDIES["pairing"], pairs)
    assert {(row.source, row.target) for row in rows} == {(0, 1), (0, 2), (1, 2)}
    assert rows_of(opened(cohort), with_rows("pairing", never), pairs) == rows
    beside = ComparisonRows(opened(cohort)).beside(pairs)
    assert [row for row in beside if row.study == f"pairing{LIVE}"] == rows
    assert all(row.source is not None for row in rows)  # what all pairs say together is for who has all


def test_rows_of_a_checkpoint_have_the_key_of_no_row_of_the_whole_study(cohort: Cohort) -> None:
    comparison = opened(cohort)
    (pair, *_) = comparison.pairs_at(10)
    own = rows_of(comparison, BRIEF_STUDIES["pairing"], [pair])
    evidence = comparison.evidence(pair.ends, [pair])
    whole = [row for row in pair_studies.pairing_rows(evidence) if row.source is not None]
    assert {(row.site, row.metric) for row in own} & {(row.site, row.metric) for row in whole}
    assert not {row.study for row in own} & {row.study for row in whole}
    assert metrics_of(own) == {}  # without a ladder nothing is charted of either


def test_rows_of_other_families_or_versions_are_not_read(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PairCache(opened(cohort))
    pair = cache.comparison.pairs_at(10)[0]
    cache.rows(LADDER, [pair])
    assert cache.stored(LADDER, [pair])
    monkeypatch.setitem(FAMILIES, "twin", replace(FAMILIES["orthogonal"], name="twin", freedom=4.5))
    assert cache.stored(LADDER, [pair]) == []
    assert {row.map for row in cache.rows(LADDER, [pair]).rows} >= {"twin"}


def test_a_pair_has_the_same_rows_whoever_is_read_beside_it(cohort: Cohort) -> None:
    comparison, study = opened(cohort), BRIEF_STUDIES["pairing"]
    pairs = [pair for pair in comparison.pairs_at(4) if pair.role == "estimate"]
    alone = [own for pair in pairs for own in study.rows(comparison, [pair])]
    assert list(study.rows(comparison, pairs)) == alone


def test_regimes_are_told_in_brief(cohort: Cohort) -> None:
    comparison = opened(cohort)
    (pair, *_) = comparison.pairs_at(10, [0])
    rows = rows_of(comparison, BRIEF_STUDIES["steering"], [pair])
    assert {row.extra["group"] for row in rows} == {"named"}
    assert {row.extra["dose"] for row in rows if "dose" in row.extra} == {1.0}
    assert {row.map for row in rows if row.map} == {"identity", "orthogonal"}
    called = [row for row in rows if row.metric == "regime"]
    assert any(row.extra.get("control") == "tokens_permuted" for row in called)
    assert BRIEF.identity() != Steering().identity()


def test_ceilings_have_none(cohort: Cohort) -> None:
    comparison = opened(cohort)
    ceilings = [pair for pair in comparison.pairs_at(10) if pair.role == "ceiling"]
    assert ceilings
    assert rows_of(comparison, BRIEF_STUDIES["pairing"], ceilings) == []


def test_a_pair_that_cannot_bear_a_study_is_said_once_and_has_no_rows(cohort: Cohort) -> None:
    def refuses(*_: object) -> NoReturn:
        raise RequestError("no contrast")

    comparison, study = opened(cohort), with_rows("steering", refuses)
    pairs = comparison.pairs_at(4, [0])[:1]
    assert rows_of(comparison, study, pairs) == rows_of(comparison, study, pairs) == []
    assert comparison.say.__self__ == ["not made at step 4: steering: no contrast"]


def test_a_fault_costs_neither_the_ladder_nor_the_training() -> None:
    def breaks(*_: object) -> NoReturn:
        raise ArithmeticError("something of ours")

    broken = mock.patch.dict(BRIEF_STUDIES, {"pairing": with_rows("pairing", breaks)})
    with memory_folder() as folder, broken:
        cohort = trained(folder, "seed=[0,1]", "trainer.max_steps=2", "trainer.log_every=1")
        assert len(rows_of_kind(cohort, 0, "comparison failure")) > 0
        comparison = Comparison.of(cohort, torch.device("cpu"))
        pairs = [pair for pair in comparison.pairs_at(2) if pair.role == "estimate"]
        assert all(PairCache(comparison).stored(LADDER, [pair]) for pair in pairs)


def test_members_that_are_in_memory_are_not_read_back() -> None:
    read: list[tuple[int, int]] = []

    def noted(member: Member, step: int) -> Any:
        read.append((member.seed, step))
        return reading(member, step)

    reading = Member.read_step
    with memory_folder() as folder, mock.patch.object(Member, "read_step", noted):
        during: list[int] = []
        made = BRIEF_STUDIES["pairing"].made

        def counted(evidence: Any) -> Any:
            during.append(len(read))
            return made(evidence)

        before = with_rows("pairing", counted)
        with mock.patch.dict(BRIEF_STUDIES, {"pairing": before}):
            trained(folder, "seed=[0,1]", *LARGER[:2], "trainer.max_steps=4")
    assert during
    assert set(during) == {0}


def test_training_is_the_same_whatever_is_watched() -> None:
    from cohorts import all_weights, equal

    found = []
    for watched in ((UNWATCHED,), ("callbacks.cross_seed.steering=online",)):
        with memory_folder() as folder:
            found.append(
                all_weights(trained(folder, "seed=[0,1]", *watched, *LARGER[:2], "trainer.max_steps=4"), 1)
            )
    assert equal(*found)
