from dataclasses import replace
from types import ModuleType
from xml.etree import ElementTree

import matplotlib
import polars as pl
import pytest
from planted_report import of_all, with_tables

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.plate import Drawn, Missing, Plate
from polymorph.plotting.style import R2_FLOOR
from polymorph.plotting.table_rows import DISTRIBUTIONS, at_last_steps, once
from polymorph.report import training_curves
from polymorph.report.figure_files import figure_files, saved
from polymorph.report.figures import draw_all
from polymorph.studies.angles import figure as eigenvalue_angles
from polymorph.studies.ladder import frobenius_trajectory, r2_by_site, r2_trajectory

NAMES = ["training_curves", "r2_by_site", "r2_trajectory", "frobenius_trajectory", "eigenvalue_angles"]
HOSTILE = [
    "$\\frac{$",
    "<script>alert(1)</script>",
    '"><img onerror=x>',
    "a\x00\x1b[0m\ud800b\u202e",
    "--><x>",
    "_^{",
]


def plate_of(module: ModuleType, ladder: pl.DataFrame) -> Drawn:
    return module.plate(ladder, at_last_steps(ladder))


def texts(plate: Plate) -> list[str]:
    return [title for axes in plate.figure.axes if (title := axes.get_title(loc="left"))]


def test_every_figure_is_drawn_and_counts_what_stands_behind_it(listed):
    assert [plate.name for plate in listed] == NAMES
    for plate in listed:
        assert isinstance(plate, Plate)
        assert "3 seeds (0, 1, 2)" in plate.caption
        assert "documents" in plate.caption
        assert "tokens" in plate.caption
        assert "interval" in plate.caption
        assert len(plate.alt) < 400
    for plate in listed[1:]:
        assert "3 unordered pairs, 6 directed" in plate.caption
        assert "fit split: 60 documents, 480 tokens; eval split: 60 documents, 480 tokens" in plate.caption
    assert all("ȳ the mean of each dimension" in plate.caption for plate in listed[1:3])
    assert "size 0" in listed[4].caption
    assert "participation ratio" in listed[4].caption


def test_sites_stand_in_the_order_of_the_computation(listed):
    sites = ["blocks.0.hook_resid_mid", "blocks.0.hook_resid_post", "blocks.1.hook_resid_mid"]
    assert all(texts(plate) == sites for plate in listed[1:])


def test_dots_are_the_rows_of_the_last_step(listed, planted):
    axes = listed[1].figure.axes[0]
    about = {"site": "blocks.0.hook_resid_mid", "metric": "r2", "map": "orthogonal", "role": "estimate"}
    rows = planted.ladder.filter(target_step=64, **about).sort("source", "target")
    dots = [line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata()) == 6]
    assert rows["value"].to_list() in dots


def test_what_lies_below_the_scale_is_an_arrow_and_counted(planted):
    low = pl.when((pl.col("map") == "identity") & (pl.col("source") == 0)).then(R2_FLOOR - 1.5)
    plate = plate_of(r2_by_site, planted.ladder.with_columns(value=low.otherwise(pl.col("value"))))
    # seed 0 is the source of two directed pairs at three sites
    assert "Off the scale, below −2: 6 dots (identity 6; the lowest at −3.50)" in plate.caption
    assert [text.get_text() for text in plate.figure.axes[0].texts] == ["2"]
    assert "Off the scale" not in plate_of(r2_by_site, planted.ladder).caption


def test_members_with_unequal_last_steps_are_compared_at_their_own(planted):
    early = planted.ladder.filter(
        (pl.col("source") != 2) & (pl.col("target") != 2) | (pl.col("target_step") < 64)
    )
    assert "each pair's last steps (4 to 64)" in plate_of(r2_by_site, early).caption


def test_without_ceilings_captions_say_so(planted):
    plain = planted.ladder.filter(pl.col("role") != "ceiling")
    for module in (r2_by_site, r2_trajectory):
        assert "There is no ceiling" in plate_of(module, plain).caption
        assert "There is no ceiling" not in plate_of(module, planted.ladder).caption
    assert isinstance(plate_of(frobenius_trajectory, plain), Plate)


def test_one_checkpoint_has_no_trajectory_and_says_why(planted):
    last = planted.ladder.filter((pl.col("source_step") == 64) & (pl.col("target_step") == 64))
    for module in (r2_trajectory, frobenius_trajectory):
        missing = plate_of(module, last)
        assert isinstance(missing, Missing)
        assert "one step only (64)" in missing.reason
    assert isinstance(plate_of(r2_by_site, last), Plate)


def test_one_site_and_one_pair_are_enough(planted):
    one = planted.ladder.filter(
        (pl.col("site") == "blocks.1.hook_resid_mid") & (pl.col("source") + pl.col("target") == 1)
    )
    angles = planted.tables["angles"].filter(
        (pl.col("site") == "blocks.1.hook_resid_mid") & (pl.col("source") + pl.col("target") == 1)
    )
    plates = of_all(
        draw_all(replace(with_tables(planted, ladder=one, angles=angles), members=planted.members[:2]))
    )
    assert all(isinstance(plate, Plate) for plate in plates)
    assert "2 seeds (0, 1), 1 unordered pair, 2 directed" in plates[1].caption


@pytest.mark.parametrize("rows", [pl.DataFrame(), None])
def test_no_rows_are_five_reasons(planted, rows):
    tables = {name: table.clear() if rows is None else rows for name, table in planted.tables.items()}
    history = planted.history.clear() if rows is None else rows
    missing = of_all(draw_all(replace(planted, tables=tables, history=history)))
    assert [type(each) for each in missing] == [Missing] * 5
    assert all(each.reason.endswith(".") for each in missing)
    assert figure_files(missing) == {}


def test_rows_without_intervals_or_steps_are_drawn(planted):
    null = pl.lit(None)
    bare = planted.ladder.filter(pl.col("role") != "ceiling").with_columns(
        low=null.cast(pl.Float64), high=null.cast(pl.Float64)
    )
    assert "hold no intervals" in plate_of(r2_by_site, bare).caption
    last = bare.filter(pl.col("source_step") == 64)
    unstepped = last.with_columns(source_step=null.cast(pl.Int64), target_step=null.cast(pl.Int64))
    assert "the only state recorded" in plate_of(r2_by_site, unstepped).caption
    assert isinstance(plate_of(r2_trajectory, unstepped), Missing)


def test_a_history_with_values_that_are_not_finite_is_drawn_without_them(planted):
    broken = pl.when(pl.col("step") == 64).then(float("nan")).otherwise(pl.col("value"))
    plate = training_curves.plate(planted.history.with_columns(value=broken))
    assert "54 values of the history that are not finite are left out" in plate.caption


@pytest.mark.parametrize("names", [HOSTILE[:3], HOSTILE[3:]])
def test_hostile_names_are_drawn_as_they_are(planted, names):
    given = [printable(name) for name in names]
    sites = dict(zip(sites_in_order(planted.ladder), given, strict=True))
    distributions = dict(zip(DISTRIBUTIONS, given, strict=True))
    history = planted.history.with_columns(
        pl.col("distribution").replace(distributions), head=pl.lit(given[0])
    )
    tables = [
        frame.with_columns(pl.col("site").replace(sites))
        for frame in (planted.ladder, planted.tables["angles"])
    ]
    for plate in (
        training_curves.plate(history),
        plate_of(r2_by_site, tables[0]),
        eigenvalue_angles.plate(tables[1], tables[0]),
    ):
        svg = saved(plate.figure, "svg").decode()
        ElementTree.fromstring(svg)  # whole, in spite of the names in its comments
        assert "<script" not in svg
        assert "<img" not in svg
    assert len(texts(plate_of(r2_by_site, tables[0]))) == 3


def printable(name: str) -> str:
    """Polars holds no lone surrogates: UTF-8 has none."""
    return name.encode("utf-8", "replace").decode()


def test_sites_are_ordered_by_block_and_stage_not_by_name():
    names = ["ln_final.hook_normalized", "blocks.10.hook_resid_post", "blocks.2.hook_resid_post"]
    names += ["blocks.2.hook_resid_mid", "blocks.2.hook_resid_pre", "hook_embed"]
    assert sites_in_order(pl.DataFrame({"site": names})) == names[::-1]


def test_a_pair_given_both_ways_counts_once_and_one_given_backward_counts(planted):
    both = planted.ladder.filter((pl.col("metric") == "trace") & (pl.col("role") == "estimate"))
    assert once(both).height * 2 == both.height
    backward = both.filter(pl.col("source") > pl.col("target"))
    assert once(backward).height == backward.height == once(both).height


def test_drawing_leaves_no_global_state(planted):
    before = dict(matplotlib.rcParams)
    figure_files([plate_of(r2_by_site, planted.ladder)])
    assert dict(matplotlib.rcParams) == before
