"""The paper's claims as data, and the verdicts that they get from rows whose truth is known."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from polymorph.cli import command
from polymorph.cli.config import AnalyzeConfig, TrainConfig, register
from polymorph.evidence.rows import Row, table
from polymorph.papers.mccann2026 import ledger as judging
from polymorph.papers.mccann2026.entries import (
    LEDGER,
    Absent,
    CohortSpec,
    Entry,
    Fact,
    Selector,
    entry_of,
    load_ledger,
    selector_of,
)
from polymorph.papers.mccann2026.ledger import (
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNINFORMATIVE,
    Judged,
    judge,
)
from polymorph.papers.mccann2026.measurement import (
    Measured,
    Missing,
    Sound,
    measured,
    sound_estimate,
)
from polymorph.papers.mccann2026.printed_numbers import Expected, ks_distance
from polymorph.studies.registry import STUDIES
from polymorph.verdicts.estimate import Estimate

DOCS = Path(__file__).parent.parent.parent / "docs" / "paper_ledger.yaml"
TABLES = (
    "SAE EV, Dyck cohort A, inner sites, ×8: own / naive on another seed / after R",
    "cohort B: naive / after R",
    "Pythia, 8 pairs × 7 sites: naive / after R",
    "matched-Gaussian control EV",
    "‖R−I‖_F: A / B / Pythia",
    "eigenvalue angles vs Haar, Pythia, KS",
    "distance of R to the nearest permutation",
    "decoder columns with max cosine > 0.5 / mean max cosine",
    "firing-pattern correlation, raw → after R",
    "bar B, seeds 0–4 (threshold 1e-4)",
    "bar P, cross-seed, max per-tensor MSE (threshold 1e-3)",
    "bars C and Pr within a seed (IG with 32 points / attribution patching)",
    "bar C across seeds",
    "decoy (depth unembedding rows averaged in pairs) bar B / P",
    "steering on Dyck at `blocks.1.hook_resid_mid`: cross/within effect",
    "steering on Pythia, block 3 output, α 0.5, 1, 2, 4: KL cross / KL within",
    "cross-checkpoint, Dyck 30k→58k",
    "cross-checkpoint, pythia-70m-seed1 step3000→143000, layer 3",
    "Pythia block ablation: measured / AP / IG, layers 0–5",
)
"""Every line of the paper's tables."""
SPEC = CohortSpec(
    about="a planted cohort",
    family={"task.name": "toy"},
    exactly={"cohort.seeds": [0, 1], "member.trainer.max_steps": 8},
    make="make the cohort",
    saes="make its SAEs",
)
FACTS: dict[str, Any] = {
    "task.name": "toy",
    "cohort.seeds": [0, 1],
    "member.trainer.max_steps": 8,
    "a.setting": 3,
}


# The data.


def test_the_ledger_is_one_file_that_docs_and_the_package_share() -> None:
    assert DOCS.resolve() == LEDGER.resolve()


def test_every_row_of_the_papers_tables_has_claims() -> None:
    rows = [entry.row for entry in load_ledger().entries]
    assert set(TABLES) <= set(rows)
    assert all(rows.count(row) >= 1 for row in TABLES)
    beside = {row.split(":")[0] for row in set(rows) - set(TABLES)}
    assert beside == {"Dyck-3", "Pythia", "SAEs in the paper", "Steering vectors on Dyck", "The claim"}


def test_no_claim_is_without_a_producer_or_the_reason_why() -> None:
    for entry in load_ledger().entries:
        assert isinstance(entry.producer, Selector | Fact) or (
            isinstance(entry.producer, Absent) and len(entry.producer.because) > 20
        )
        assert entry.claim.endswith(".")
        assert entry.bears


def test_the_readme_counts_them() -> None:
    readme = (DOCS.parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"the {len(load_ledger().entries)} numbers" in readme


def test_what_the_paper_says_of_one_number_is_in_the_ledger() -> None:
    """Spot checks against the paper's text: a range, a list, a bound, a number."""
    found = {entry.id: entry.paper.numbers for entry in load_ledger().entries}
    assert found["sae_ev.dyck_a.mapped"] == (0.976, 0.99)
    assert found["bar_b.seeds"] == (1.74e-4, 3.2e-4, 4.4e-4, 1.81e-4, 2.23e-4)
    assert found["ablation.measured"] == (6.04, 6.02, 5.1, 5.37, 5.56, 5.52)
    assert found["model.parameters"] == (104448,)


def test_the_commands_of_the_ledger_are_such_that_the_programs_take_them() -> None:
    register()
    for spec in load_ledger().cohorts.values():
        for line in filter(None, [*spec.make.split(" && "), *spec.saes.split(" && ")]):
            python, program, *arguments = shlex.split(line)
            name = program.removesuffix(".py")
            kind: Any = {"train": TrainConfig, "analyze": AnalyzeConfig}[name]
            assert python == "python"
            assert command.requests(name, kind, arguments) is not None


def plain(**changes: Any) -> dict[str, Any]:
    return {
        "id": "one",
        "row": "a row",
        "claim": "It is 1.",
        "cohort": "toy",
        "convention": "as it is",
        "paper": {"value": 1},
        "tolerance": 0.1,
        "producer": {"study": "ladder", "metric": "r2"},
        "sound": {"study": "ladder", "metric": "r2"},
        "sound_convention": "the same",
        "bears": "nothing",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"producer": {"study": "laddder", "metric": "r2"}}, "laddder"),
        ({"producer": {"study": "ladder", "metric": "r2", "where": {"colour": "red"}}}, "colour"),
        ({"producer": {"study": "ladder", "metric": "r2", "where": {"role": "guess"}}}, "guess"),
        ({"producer": {"study": "ladder", "metric": "r2", "aggregate": "mode"}}, "mode"),
        ({"producer": {"study": "ladder", "metric": "r2", "colour": "red"}}, "colour"),
        ({"producer": {"study": "ladder", "metric": "r2", "sites": "outer"}}, "outer"),
        ({"producer": "no producer"}, "no reason"),
        ({"producer": None}, "no producer"),
        ({"paper": {"about": 1}}, "about"),
        ({"paper": {"range": [2, 1]}}, "range"),
        ({"paper": {"value": float("nan")}}, "finite"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_in_an_entry_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"one.*{told}"):
        entry_of(plain(**changes))


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    text = LEDGER.read_text(encoding="utf-8")
    (tmp_path / "twice.yaml").write_text(text.replace("id: task.bos\n", "id: task.pad\n"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"task\.pad stands twice"):
        load_ledger(tmp_path / "twice.yaml")


# What is the same number.


@pytest.mark.parametrize(
    ("expected", "met", "missed"),
    [
        (Expected("value", (1.0,), 0.1), [0.9, 1.1], [1.0, 1.11]),
        (Expected("value", (-2.0,), 0.1, relative=True), [-2.2], [-2.21]),
        (Expected("range", (1.0, 2.0), 0.1), [0.9, 2.1], [0.89, 1.5]),
        (Expected("list", (1.0, 2.0), 0.1), [1.1, 1.9], [2.0, 1.0]),
        (Expected("at_least", (1.0,)), [1.0], [0.99]),
        (Expected("at_most", (1.0,)), [1.0], [1.01]),
        (Expected("above", (1.0,)), [1.01], [1.0]),
        (Expected("below", (1.0,)), [0.99], [1.0]),
    ],
)
def test_numbers_are_met_inside_the_tolerance_and_not_outside(
    expected: Expected, met: list[float], missed: list[float]
) -> None:
    assert expected.met(met)
    assert not expected.met(missed)


def test_another_number_of_numbers_than_a_list_has_is_not_compared() -> None:
    expected = Expected("list", (1.0, 2.0), 0.1)
    assert not expected.comparable([1.0])
    with pytest.raises(ValueError, match="1 numbers, and the paper has 2"):
        expected.met([1.0])


def test_the_distance_from_the_uniform_law() -> None:
    """Half a step for angles in the middle of n equal parts, and nearly all of it for one angle at the end."""
    even = [(i + 0.5) / 10 * 2 * 3.141592653589793 - 3.141592653589793 for i in range(10)]
    assert ks_distance(even[::-1]) == pytest.approx(0.05)
    assert ks_distance([-3.14] * 10) > 0.99


# Rows.


def row(value: float, source: int = 0, target: int = 1, site: str = "a", **about: Any) -> Row:
    given = {
        "cohort": "toy",
        "study": "ladder",
        "role": "estimate",
        "metric": "r2",
        "map": "orthogonal",
        **about,
    }
    return Row(value=value, source=source, target=target, site=site, **given)


def tables(*rows: Row) -> dict[str, pl.DataFrame]:
    return {"ladder": table(rows, STUDIES["ladder"].columns)}


BOTH = tables(
    row(1.0, low=0.9, high=1.1),
    row(3.0, 1, 0, low=2.9, high=3.1),
    row(5.0, 0, 0, role="ceiling"),
    row(4.0, 1, 1, role="ceiling"),
    row(0.5, extra={"control": "haar_draw"}, role="control"),
    row(7.0, map="affine"),
)
R2 = Selector(study="ladder", metric="r2", where={"map": "orthogonal"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, (1.0, 3.0)),
        ({"aggregate": "median"}, (2.0,)),
        ({"aggregate": "each", "by": ("target",)}, (3.0, 1.0)),
        ({"aggregate": "count"}, (2.0,)),
        ({"where": {"map": ["orthogonal", "affine"]}, "aggregate": "max"}, (7.0,)),
        ({"where": {"role": "control", "control": "haar_draw"}, "aggregate": "median"}, (0.5,)),
        ({"prefer": {"source": 1}, "aggregate": "median"}, (3.0,)),
    ],
)
def test_a_selector_finds_its_rows_and_no_others(changes: dict[str, Any], told: tuple[float, ...]) -> None:
    found = measured(replace(R2, **changes), BOTH)
    assert isinstance(found, Measured)
    assert found.told == told
    assert found.instead == ()


def test_groups_are_taken_off_and_divide_one_by_one() -> None:
    own = replace(R2, where={"map": "orthogonal", "role": "ceiling"}, by=("source",))
    estimates = replace(R2, by=("source",))
    less = measured(replace(own, less=estimates, aggregate="each"), BOTH)
    over = measured(replace(own, over=estimates, aggregate="each"), BOTH)
    assert isinstance(less, Measured)
    assert less.told == (4.0, 1.0)
    assert isinstance(over, Measured)
    assert over.told == (5.0, pytest.approx(4 / 3))
    with pytest.raises(ValueError, match="grouped by the same"):
        replace(own, less=R2)


def test_what_is_not_there_is_said() -> None:
    none = measured(replace(R2, where={"map": "similarity"}), BOTH)
    assert none == Missing("ladder has no such r2", "ladder")
    assert measured(R2, {}) == Missing("there is no table of ladder", "ladder")


def test_what_is_preferred_and_not_there_is_replaced_and_said() -> None:
    found = measured(replace(R2, prefer={"source": 9}), BOTH)
    assert isinstance(found, Measured)
    assert found.told == (1.0, 3.0)
    assert found.instead == ("source 0, 1 instead of 9",)


def test_two_steps_are_those_or_else_at_the_same_share_of_the_training() -> None:
    def between(early: int, late: int, value: float) -> Row:
        return row(value, 0, 0, role="ceiling", source_step=early, target_step=late)

    there = tables(between(1, 10, 1.0), between(5, 10, 2.0), between(9, 10, 3.0), between(1, 5, 4.0))
    asked = replace(R2, where={"map": "orthogonal", "role": "ceiling"}, aggregate="each")
    exact, near = (measured(replace(asked, steps=steps), there) for steps in ((1, 5), (30, 58)))
    assert isinstance(exact, Measured)
    assert (exact.told, exact.instead) == ((4.0,), ())
    assert isinstance(near, Measured)
    assert (near.told, near.instead) == ((2.0,), ("steps 5 and 10 instead of 30 and 58",))


def test_inner_sites_leave_out_the_first_and_the_last() -> None:
    names = [f"blocks.{n}.hook_resid_{place}" for n in (0, 1) for place in ("mid", "post")]
    there = tables(*(row(float(i), site=name) for i, name in enumerate(names)))
    found = measured(replace(R2, sites="inner"), there)
    assert isinstance(found, Measured)
    assert found.told == (1.0, 2.0)


def sound(selector: Selector, rows: dict[str, pl.DataFrame]) -> Sound:
    found = sound_estimate(selector, rows)
    assert isinstance(found, Sound)
    return found


def test_the_sound_number_has_the_interval_of_claims_cut_to_what_is_possible() -> None:
    found = sound(R2, BOTH)
    assert found.estimate == Estimate(2.0, pytest.approx(1.9), pytest.approx(2.1))
    assert found.over == "documents"  # with two seeds nothing is known of others
    assert sound(replace(R2, limits=(0.0, 2.0)), BOTH).estimate.high == 2.0


THREE = [row(1.0, 0, 1), row(2.0, 1, 2), row(4.0, 2, 0)]


def test_an_interval_is_over_what_is_known() -> None:
    """Three seeds can be left out one at a time; of those that are all compared with one, that one cannot."""
    found = sound(R2, tables(*THREE))
    assert found.over == "seeds"
    assert found.estimate.low is not None
    assert found.estimate.low < 1.0  # it is wide, with three
    both = sound(R2, tables(*(replace(one, low=one.value - 1, high=one.value + 1) for one in THREE)))
    assert both.over == "documents and seeds"
    assert both.estimate.low is not None
    assert both.estimate.low < found.estimate.low
    anchored = sound(R2, tables(row(1.0, 0, 1), row(2.0, 0, 2), row(4.0, 0, 3)))
    assert (anchored.over, anchored.estimate) == ("", Estimate(pytest.approx(7 / 3), None, None))


# Verdicts.


def entry(**changes: Any) -> Entry:
    orthogonal = {"study": "ladder", "metric": "r2", "where": {"map": "orthogonal"}}
    return entry_of(
        plain(**{"producer": orthogonal, "sound": orthogonal, "paper": {"range": [1, 3]}, **changes})
    )


def verdict(rows: dict[str, pl.DataFrame] = BOTH, facts: dict[str, Any] = FACTS, **changes: Any) -> Judged:
    return judge(entry(**changes), SPEC, rows, facts)


def test_a_number_in_the_tolerance_is_reproduced_and_one_outside_is_not() -> None:
    assert verdict().verdict == REPRODUCED
    assert verdict(paper={"range": [1.2, 3]}).verdict == NOT_REPRODUCED
    assert verdict().elsewhere == ()


CONTROL = {"study": "ladder", "metric": "r2", "where": {"role": "control", "control": "haar_draw"}}


def test_a_control_that_reaches_the_number_empties_it_and_one_that_does_not_leaves_it() -> None:
    """The control has 0.5 and the estimate 2 in the median."""
    reached = verdict(
        empty={"because": "chance", "control": {**CONTROL, "aggregate": "median"}, "share": 0.25}
    )
    assert reached.verdict == UNINFORMATIVE
    assert reached.reason == "chance; the control has 0.5"
    left = verdict(empty={"because": "chance", "control": {**CONTROL, "aggregate": "median"}, "share": 0.26})
    assert left.verdict == REPRODUCED
    assert left.control == (0.5,)


def test_a_control_may_have_to_meet_the_same_expectation() -> None:
    empty = {"because": "chance", "control": CONTROL}
    assert verdict(empty=empty).verdict == REPRODUCED
    assert verdict(empty=empty, paper={"at_least": 0.5}).verdict == UNINFORMATIVE


def test_what_cannot_fail_is_uninformative_and_what_failed_is_not() -> None:
    empty = {"because": "it cannot fail"}
    assert verdict(empty=empty).verdict == UNINFORMATIVE
    assert verdict(empty=empty, paper={"value": 9}).verdict == NOT_REPRODUCED


def test_the_control_stands_beside_a_number_that_is_not_reproduced_too() -> None:
    found = verdict(empty={"because": "chance", "control": CONTROL}, paper={"value": 9})
    assert found.verdict == NOT_REPRODUCED
    assert found.control == (0.5, 0.5)


def test_a_control_that_was_not_made_is_said() -> None:
    missing = {**CONTROL, "where": {"role": "control", "control": "tokens_permuted"}}
    found = verdict(empty={"because": "chance", "control": missing})
    assert found.verdict == REPRODUCED
    assert "its control was not made" in found.reason


def test_a_cohort_of_another_kind_is_not_judged() -> None:
    found = verdict(facts={**FACTS, "task.name": "other"})
    assert (found.verdict, found.ours) == (NOT_RUN, ())
    assert "task.name other instead of toy" in found.reason
    assert found.make == "make the cohort"


def test_a_cohort_of_another_size_is_judged_and_marked() -> None:
    found = verdict(facts={**FACTS, "member.trainer.max_steps": 2})
    assert found.verdict == REPRODUCED
    assert found.told == "reproduced (on another cohort)"
    assert found.elsewhere == ("member.trainer.max_steps 2 instead of 8",)


def test_a_missing_study_names_the_commands() -> None:
    sae = {"study": "sae_transfer", "metric": "explained_variance"}
    found = verdict(producer=sae)
    assert (found.verdict, found.make) == (NOT_RUN, "make the cohort && make its SAEs")
    assert found.reason == "there is no table of sae_transfer"
    assert verdict(rows={}).make == "make the cohort"
    empty = {"sae_transfer": table([], STUDIES["sae_transfer"].columns)}
    assert verdict(rows=BOTH | empty, producer=sae).reason == "sae_transfer has no such explained_variance"


def test_fewer_numbers_than_the_paper_lists_are_not_judged() -> None:
    found = verdict(paper={"list": [1, 2, 3]})
    assert found.verdict == NOT_RUN
    assert found.ours == (1.0, 3.0)
    assert "2 numbers, and the paper has 3" in found.reason


def test_a_setting_is_reproduced_or_not_run_where_another_cohort_has_another() -> None:
    assert verdict(producer={"fact": "a.setting"}, paper={"value": 3}).verdict == REPRODUCED
    assert verdict(producer={"fact": "a.setting"}, paper={"value": 4}).verdict == NOT_REPRODUCED
    elsewhere = {**FACTS, "cohort.seeds": [5]}
    assert verdict(facts=elsewhere, producer={"fact": "a.setting"}, paper={"value": 4}).verdict == NOT_RUN
    assert verdict(producer={"fact": "another"}).reason == "another is not recorded"


def test_no_producer_is_not_run_with_its_reason() -> None:
    found = verdict(producer="no producer", sound="no producer", because="nobody knows")
    assert (found.verdict, found.reason) == (NOT_RUN, "no producer: nobody knows")


def test_every_entry_is_counted_under_one_verdict() -> None:
    judged = [verdict(), verdict(paper={"value": 9}), verdict(rows={})]
    assert judging.counts(judged) == {REPRODUCED: 1, UNINFORMATIVE: 0, NOT_REPRODUCED: 1, NOT_RUN: 1}


def test_a_selector_from_data_keeps_its_parts() -> None:
    made = selector_of({"study": "ladder", "metric": "r2", "by": ["site"], "less": {"study": "ladder", "metric": "r2",
                        "by": ["site"]}})  # fmt: skip
    assert made.less is not None
    assert made.by == made.less.by == ("site",)
