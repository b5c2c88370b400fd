"""What a page says first: the verdict on the cohort in sentences whose numbers are those of the rows."""

from dataclasses import replace

import polars as pl
import pytest

from polymorph.plotting.table_rows import at_last_steps
from polymorph.report.figures import MEMBERS
from polymorph.report.opening import beside, opening_of
from polymorph.report.sections import sections_of
from polymorph.studies.registry import STUDIES
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.findings import Isometry, ReasonCode, Verdict
from polymorph.verdicts.words import UNKNOWN, WORDS

SITES = ("blocks.0.hook_resid_mid", "blocks.0.hook_resid_post", "blocks.1.hook_resid_mid")


def verdict(
    site: str, word: str, code: ReasonCode = "above_bound", on_support: Verdict | None = None
) -> Claim:
    return Claim(site=site, finding=Verdict(word=word, reason_code=code, on_support=on_support))


def isometry(site: str, word: str) -> Claim:
    return Claim(site=site, finding=Isometry(word=word))


@pytest.fixture(scope="module")
def last(planted) -> pl.DataFrame:
    return at_last_steps(planted.ladder)


def mean(
    last: pl.DataFrame, name: str, site: str, role: str = "estimate", control: str | None = None
) -> float:
    rows = last.filter(pl.col("control").eq_missing(control), metric="r2", map=name, site=site, role=role)
    return float(rows["value"].mean())


def test_one_verdict_for_all_is_one_sentence_and_others_name_their_sites(last):
    same = [verdict(site, "rotation") for site in SITES]
    assert (
        opening_of(same, last)[0] == f"The verdict is rotation at all 3 sites: {WORDS['rotation'].meaning}."
    )
    mixed = [*same[:2], verdict(SITES[2], "affine")]
    said = opening_of(mixed, last)[0]
    assert f"The verdict is rotation at {SITES[0]}, {SITES[1]} (2 of 3 sites)" in said
    assert f"The verdict is affine at {SITES[2]} (1 of 3 sites): {WORDS['affine'].meaning}." in said


def test_what_holds_on_the_determined_dimensions_is_said_beside(last):
    affine = Verdict(word="affine", reason_code="above_bound")
    partly = verdict(SITES[0], "undetermined", "partly_determined", affine)
    said, more, *_ = opening_of([partly], last)
    assert "the data determine only part of R" in said
    assert f"the same rule says affine at {SITES[0]}." in more
    said, *others = opening_of([verdict(SITES[0], "undetermined", "not_settled")], last)
    assert WORDS["undetermined"].meaning in said
    assert "the same rule says" not in " ".join(others)


def test_a_word_without_a_meaning_is_said_without_one(last):
    assert opening_of([verdict(SITES[0], "quixotic")], last)[0] == (
        f"The verdict is quixotic at {SITES[0]}: {UNKNOWN.meaning}."
    )


def test_real_claims_say_what_holds_on_the_support(studied):
    said = [one.finding for one in studied.claims if isinstance(one.finding, Verdict)]
    partly = [one for one in said if one.reason_code == "partly_determined"]
    assert partly
    assert all(one.on_support is not None and one.on_support.word in WORDS for one in partly)


def test_where_a_rotation_is_rejected_and_where_it_is_not(last):
    rejected = isometry(SITES[0], "rejected")
    kept = isometry(SITES[1], "not rejected")
    assert f"alone is rejected at {SITES[0]} (1 of 2 sites)" in " ".join(opening_of([rejected, kept], last))
    assert "alone is rejected nowhere" in " ".join(opening_of([kept], last))
    assert "rejected" not in " ".join(opening_of([], last))


def test_the_numbers_are_means_over_pairs_of_the_best_determined_site(last):
    said = " ".join(opening_of([], last))
    r = {
        site: last.filter(metric="determined_dimension", role="estimate", site=site)["value"].min()
        for site in SITES
    }
    site = max(SITES, key=lambda one: (r[one], mean(last, "orthogonal", one)))
    best = f"the best rotation or reflection explains R² {mean(last, 'orthogonal', site):.2f} ["
    assert f"At {site}, where the data determine most of it, {best}" in said
    assert f"any affine map {mean(last, 'affine', site):.2f}" in said
    ceiling = mean(last, "orthogonal", site, "ceiling")
    assert f"which is the ceiling, {ceiling:.2f}" in said
    assert (
        f"The data determine {min(r.values()):.0f} to {max(r.values()):.0f}, depending on the site, of the 16"
        in said
    )


def test_what_was_not_measured_is_not_said(last):
    assert opening_of([], last.clear()) == []
    plain = last.filter(pl.col("role") == "estimate", pl.col("metric") == "r2")
    said = " ".join(opening_of([], plain))
    assert "ceiling" not in said
    assert "no pairing" not in said
    assert "determine 6" not in said


def test_the_cells_of_a_site_are_its_means_or_dashes(last):
    cells = beside(last, SITES[2])
    assert cells[1] == f"{mean(last, 'orthogonal', SITES[2]):.2f}"
    assert cells[3] == f"{mean(last, 'orthogonal', SITES[2], 'control', 'covariance_only'):.2f}".replace(
        "-", "−"
    )
    assert cells[-1].endswith(" of 16")
    assert beside(last, "elsewhere") == ("–",) * 6


def test_every_figure_stands_in_the_section_of_its_study(drawn):
    places = {plate.name: section for section, plates in drawn.items() for plate in plates}
    assert places == {
        "training_curves": MEMBERS,
        "r2_by_site": "ladder",
        "r2_trajectory": "ladder",
        "frobenius_trajectory": "ladder",
        "eigenvalue_angles": "angles",
    }


def test_sections_are_the_studies_that_were_made_in_page_order(planted, drawn):
    some = replace(
        planted, tables={"ladder": planted.ladder, "weights": pl.DataFrame(), "pairing": pl.DataFrame()}
    )
    made = sections_of(some, drawn)
    assert [one.study for one in made] == ["pairing", "ladder", "angles", "weights"]
    ladder = made[1]
    assert ladder.question == STUDIES["ladder"].question
    assert [plate.name for plate in ladder.plates] == ["r2_by_site", "r2_trajectory", "frobenius_trajectory"]
    assert "frobenius_from_identity" in ladder.metrics
    assert made[0].metrics == ()
    assert ladder.limits == STUDIES["ladder"].limits
    assert made[2].limits == ()  # angles, which have figures here and no table
    nothing = sections_of(replace(planted, tables={}), {})
    assert [one.study for one in nothing] == ["ladder"]
