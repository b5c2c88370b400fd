"""Pairing tests and regimes beside training: once a pair, by whoever comes second; no fault of theirs costs it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch

sys.path.append(
    str(Path(__file__).resolve().parent / "training")
)  # for the small cohorts, which are made there

from cohorts import UNWATCHED, memory_folder, rows_of_kind, trained

from polymorph.alignment.families import FAMILIES
from polymorph.errors import RequestError
from polymorph.pipeline import live_studies
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.comparison_run import Kept
from polymorph.pipeline.live_studies import LiveStudies
from polymorph.store import Cohort

LARGER = ("probe.fit=64", "probe.eval=64", "trainer.max_steps=10")


@pytest.fixture(scope="module")
def cohort() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1,2]", UNWATCHED, *LARGER)


def live(cohort: Cohort) -> LiveStudies:
    said: list[str] = []
    comparison = Comparison.of(cohort, torch.device("cpu"))
    comparison.say = said.append
    return LiveStudies(comparison)


def test_a_pair_is_computed_once_and_read_by_everybody_after(cohort: Cohort) -> None:
    first, pairs = live(cohort), live(cohort).comparison.pairs_at(10)
    rows = first.rows("pairing", pairs)
    assert {(row.source, row.target) for row in rows} == {(0, 1), (0, 2), (1, 2)}
    with mock.patch.dict(live_studies.STUDIES, {"pairing": lambda *_: pytest.fail("computed again")}):
        assert live(cohort).rows("pairing", pairs) == rows
        assert [row for row in Kept(live(cohort).comparison).beside(pairs) if row.study == "pairing"] == rows
    assert all(row.source is not None for row in rows)  # what all pairs say together is for who has all


def test_rows_of_other_families_or_versions_are_not_read(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = live(cohort).comparison
    pair = own.pairs_at(10)[0]
    own.rows([pair])
    key = own.key(pair)
    assert own.stored(key, pair) is not None
    monkeypatch.setitem(FAMILIES, "twin", replace(FAMILIES["orthogonal"], name="twin", freedom=4.5))
    assert own.key(pair) != key
    assert own.stored(own.key(pair), pair) is None
    assert {row.map for row in own.rows([pair])[0]} >= {"twin"}


def test_a_pair_has_the_same_rows_whoever_is_read_beside_it(cohort: Cohort) -> None:
    own = live(cohort)
    pairs = [pair for pair in own.comparison.pairs_at(4) if pair.role == "estimate"]
    together, alone = live_studies.STUDIES["pairing"](own.comparison, pairs), []
    for pair in pairs:
        alone.append(live_studies.STUDIES["pairing"](own.comparison, [pair])(pair))
    assert [together(pair) for pair in pairs] == alone


def test_regimes_are_told_in_brief(cohort: Cohort) -> None:
    own = live(cohort)
    (pair, *_) = own.comparison.pairs_at(10, [0])
    rows = own.rows("steering", [pair])
    assert {row.extra["group"] for row in rows} == {"named"}
    assert {row.extra["dose"] for row in rows if "dose" in row.extra} == {1.0}
    assert {row.map for row in rows if row.map} == {"identity", "orthogonal"}
    called = [row for row in rows if row.metric == "regime"]
    assert any(row.extra.get("control") == "tokens_permuted" for row in called)
    whole = own.comparison.evidence(pair.ends, [pair])
    assert whole.steering.identity() != live_studies.Steering(doses=(1.0,), brief=True).identity()


def test_ceilings_have_none(cohort: Cohort) -> None:
    own = live(cohort)
    ceilings = [pair for pair in own.comparison.pairs_at(10) if pair.role == "ceiling"]
    assert ceilings
    assert own.rows("pairing", ceilings) == []


def test_a_pair_that_cannot_bear_a_study_is_said_once_and_has_no_rows(cohort: Cohort) -> None:
    def refuses(*_: object) -> Callable[[object], None]:
        def made(pair: object) -> None:
            raise RequestError("no contrast")

        return made

    own = live(cohort)
    pairs = own.comparison.pairs_at(4, [0])[:1]
    with mock.patch.dict(live_studies.STUDIES, {"steering": refuses}):
        assert own.rows("steering", pairs) == own.rows("steering", pairs) == []
    assert own.comparison.say.__self__ == ["not made at step 4: steering: no contrast"]


def test_a_fault_costs_neither_the_ladder_nor_the_training() -> None:
    def breaks(*_: object) -> None:
        raise ArithmeticError("something of ours")

    with memory_folder() as folder, mock.patch.dict(live_studies.STUDIES, {"pairing": breaks}):
        cohort = trained(folder, "seed=[0,1]", "trainer.max_steps=2", "trainer.log_every=1")
        assert len(rows_of_kind(cohort, 0, "comparison failure")) > 0
        comparison = Comparison.of(cohort, torch.device("cpu"))
        pairs = [pair for pair in comparison.pairs_at(2) if pair.role == "estimate"]
        assert all(comparison.stored(comparison.key(pair), pair) for pair in pairs)


def test_training_is_the_same_whatever_is_watched() -> None:
    from cohorts import all_weights, equal

    found = []
    for watched in ((UNWATCHED,), ("callbacks.cross_seed.steering=online",)):
        with memory_folder() as folder:
            found.append(
                all_weights(trained(folder, "seed=[0,1]", *watched, *LARGER[:2], "trainer.max_steps=4"), 1)
            )
    assert equal(*found)
