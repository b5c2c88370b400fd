import itertools
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from polymorph.report.counting import study_behind
from polymorph.report.data import MemberSummary, ReportData
from polymorph.report.figures import AFTER, BEFORE, draw_all
from polymorph.report.plate import Drawn, Missing, Plate
from polymorph.report.reading import at_last_steps, completed, schema_of
from polymorph.report.write import saved
from polymorph.studies.registry import STUDIES

FIGURES = [(plate.__module__.rsplit(".", 1)[1], study, plate) for study, plate in (*BEFORE, *AFTER)]
SITES = ["blocks.0.hook_resid_mid", "blocks.0.hook_resid_post", "blocks.1.hook_resid_mid"]
HOSTILE = ["$\\frac{$", "<script>alert(1)</script>"]
Draw = Callable[[pl.DataFrame, pl.DataFrame], Drawn]


@pytest.fixture(scope="session")
def plates(studied: ReportData) -> dict[str, Drawn]:
    ladder = at_last_steps(studied.ladder)
    return {name: draw(rows(studied, study), ladder) for name, study, draw in FIGURES}


def rows(report: ReportData, study: str) -> pl.DataFrame:
    return completed(report.tables[study], schema_of(study))


def words(plate: Plate) -> list[str]:
    return [text.get_text() for axes in plate.figure.axes for text in axes.texts]


def test_every_study_has_a_figure(plates):
    assert {study for _, study, _ in FIGURES} == STUDIES.keys() - {"ladder", "angles"}
    for name, plate in plates.items():
        assert isinstance(plate, Plate)
        assert plate.name == name


@pytest.mark.parametrize(("name", "study", "_draw"), FIGURES)
def test_a_caption_counts_what_stands_behind_its_figure(plates, name, study, _draw):
    caption = plates[name].caption
    assert "3 seeds (0, 1, 2)" in caption
    assert "60 documents" in caption or study == "pairing"  # which permutes documents of one length alone
    assert "documents" in caption
    assert "tokens" in caption
    assert "interval" in caption
    assert len(plates[name].alt) < 400
    if name != "trajectory":
        assert "3 unordered pairs" in caption


@pytest.mark.parametrize(("name", "study", "draw"), FIGURES)
def test_a_table_without_rows_is_a_reason(studied, name, study, draw: Draw):
    empty = rows(studied, study).clear()
    missing = draw(empty, studied.ladder)
    assert isinstance(missing, Missing)
    assert missing.name == name
    assert missing.reason.endswith(".")


@pytest.mark.parametrize(("name", "study", "draw"), FIGURES)
def test_it_needs_neither_the_ladder_nor_an_order_of_rows(studied, plates, name, study, draw: Draw):
    shuffled = rows(studied, study).sample(fraction=1, shuffle=True, seed=3)
    again = draw(shuffled, studied.ladder.clear())
    assert saved(again.figure, "svg") == saved(plates[name].figure, "svg")


def test_no_training_no_figure_of_it_and_no_study_no_figure_of_that(studied):
    members = [MemberSummary(seed, "planted", None) for seed in range(3)]
    tables = {name: studied.tables[name] for name in ("ladder", "layers", "angles", "pairing")}
    planted = replace(studied, members=members, tables=tables, history=pl.DataFrame())
    drawn = {plate.name: plate for plate in draw_all(planted)}
    assert list(drawn) == ["pairing", "r2_by_site", "eigenvalue_angles", "layers"]
    assert all(isinstance(plate, Plate) for plate in drawn.values())
    assert "the only state recorded" in drawn["r2_by_site"].caption
    assert "of one seed and a second reading of it, over 3 seeds" in drawn["r2_by_site"].caption
    assert "the only state recorded" in drawn["eigenvalue_angles"].caption
    trained = {plate.name for plate in draw_all(replace(studied, tables={}, ladder=pl.DataFrame()))}
    assert {"training_curves", "r2_trajectory", "frobenius_trajectory"} <= trained
    assert "layers" not in trained


def test_haar_says_where_it_was_refused_and_where_not(plates, studied):
    said = words(plates["haar"])
    table = rows(studied, "haar")
    found = {site: table.filter(site=site, metric="determined_dimension")["value"].item() for site in SITES}
    assert found[SITES[2]] == 16
    assert said == [f"refused:\n{found[site]:.0f} of 16" for site in SITES[:2]]
    titles = [axes.get_title(loc="left") for axes in plates["haar"].figure.axes]
    assert [title for title in titles if "uncalibrated KS p = " in title] == titles[2:]
    assert "Refused at 2 of 3 sites" in plates["haar"].caption


def test_haar_refused_everywhere_is_no_figure_but_says_why(studied):
    haar = next(draw for name, _, draw in FIGURES if name == "haar")
    missing = haar(rows(studied, "haar").filter(pl.col("site") == SITES[0]), studied.ladder)
    assert isinstance(missing, Missing)
    assert " of 16" in missing.reason


def test_the_parts_of_the_distance_add_up_to_the_bar(plates, studied):
    table = rows(studied, "isometry").filter(role="estimate", site=SITES[0])
    parts = [table.filter(metric=f"{part}_distance")["value"].mean() for part in ("spectral", "relational")]
    bars = [bar for bar in plates["isometry"].figure.axes[0].patches if round(bar.get_y() + 0.275, 6) == 0]
    assert [bar.get_width() for bar in bars] == pytest.approx(parts)
    assert bars[1].get_x() == pytest.approx(parts[0])


def test_layers_show_medians_and_frame_the_same_site(plates, studied):
    table = rows(studied, "layers").filter(map="affine", site=SITES[1], source_site=SITES[0])
    axes = plates["layers"].figure.axes[1]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[1, 0] == f"{table['value'].median():.2f}".replace("-", "−")
    assert len(axes.lines) == len(SITES)


def test_a_trajectory_goes_from_the_earlier_step_to_the_later_above_the_diagonal(plates, studied):
    table = rows(studied, "trajectory").filter(
        site=SITES[0], source_step=0, target_step=64, metric="r2", map="orthogonal"
    )
    cells = {text.get_position(): text.get_text() for text in plates["trajectory"].figure.axes[0].texts}
    assert cells[2, 0] == f"{table['value'].median():.2f}".replace("-", "−")
    assert (0, 0) not in cells  # a checkpoint against itself


def test_support_tells_the_least_r_of_all_pairs(plates, studied):
    table = rows(studied, "support").filter(metric="determined_dimension", role="estimate")
    least = [table.filter(site=site)["value"].min() for site in SITES]
    assert words(plates["support"]) == [f"{r:.0f} of 16" for r in least]


def test_pairing_tells_p_of_all_members_together(plates, studied):
    table = rows(studied, "pairing").filter(pl.col("source").is_null(), metric="p_value")
    assert words(plates["pairing"]) == [f"p = {table.filter(site=s)['value'].item():.2g}" for s in SITES]


def test_curves_by_component_are_medians_over_pairs(plates, studied):
    table = rows(studied, "support").filter(
        convention="per_component", map="orthogonal", site=SITES[2], component=0
    )
    line = plates["components"].figure.axes[2].get_lines()[0]
    assert line.get_label() == "orthogonal"
    assert np.asarray(line.get_ydata())[0] == pytest.approx(table["value"].median())


def test_counts_come_from_the_rows_or_else_from_the_ladder(studied):
    ladder = at_last_steps(studied.ladder)
    support = rows(studied, "support")
    assert support["n_tokens"].is_null().all()
    assert "fit split: 60 documents, 480 tokens" in study_behind(support, ladder)
    assert "fit split: 60 documents, tokens not recorded" in study_behind(support, ladder.clear())
    own = support.with_columns(n_tokens=pl.lit(7, dtype=pl.Int64))
    assert "7 tokens" in study_behind(own, ladder)


def test_hostile_sites_are_drawn_as_they_are(studied):
    for (_, study, draw), name in zip(FIGURES, itertools.cycle(HOSTILE), strict=False):
        table = rows(studied, study).filter(pl.col("site") == SITES[2]).with_columns(site=pl.lit(name))
        if study == "layers":
            table = table.filter(pl.col("source_site") == SITES[2]).with_columns(source_site=pl.lit(name))
        svg = saved(draw(table, studied.ladder.clear()).figure, "svg")
        ElementTree.fromstring(svg)
        assert b"<script" not in svg
