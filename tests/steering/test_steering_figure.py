"""The figure shows the rows that it is made from, and says what it leaves out."""

from xml.etree import ElementTree

import polars as pl
import pytest
from planted_functions import evidence, member, rotations

from polymorph.evidence.rows import table
from polymorph.plotting.plate import Missing
from polymorph.plotting.style import map_colour
from polymorph.plotting.table_rows import completed
from polymorph.report.figure_files import saved
from polymorph.steering.regimes import REGIMES
from polymorph.studies.registry import STUDIES, schema_of
from polymorph.studies.steering import figure as figure
from polymorph.studies.steering import rows as steering

NONE = pl.DataFrame(schema=schema_of("ladder"))


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    found = evidence([member(R, seed, 0.05) for seed, R in enumerate(rotations(3))])
    return completed(table(steering.study_rows(found), STUDIES["steering"].columns), schema_of("steering"))


def test_dots_are_efficiencies_and_bars_the_shares_of_regimes(rows):
    doses, efficiencies = figure.draw(rows).axes[:2]
    (dots,) = [
        line
        for line in efficiencies.get_lines()
        if line.get_color() == map_colour("orthogonal") and line.get_marker() == "o"
    ]
    own = rows.filter(metric="transfer_efficiency", map="orthogonal", role="estimate", dose=1.0)
    assert list(dots.get_xdata()) == own.sort("source", "target")["value"].to_list()
    labels = [label.get_text() for label in efficiencies.get_yticklabels()]
    assert labels == ["identity", "orthogonal", "similarity", "affine", "tokens permuted"]
    bars = [bar for bar in efficiencies.patches if bar.get_x() > figure.GREATEST and bar.get_width() > 0]
    for place, label in enumerate(labels[:4]):
        own_bars = [bar for bar in bars if round(bar.get_y() + bar.get_height() / 2) == place]
        regimes = rows.filter(metric="regime", map=label, role="estimate")["regime"].to_list()
        shares = [regimes.count(one) / len(regimes) for one in REGIMES if one in regimes]
        total = sum(bar.get_width() for bar in own_bars)
        assert [bar.get_width() / total for bar in own_bars] == pytest.approx(shares)
    thick = [line for line in doses.get_lines() if line.get_marker() == "o"]
    assert len(thick) == 3
    medians = rows.filter(metric="on_target", role="ceiling").group_by("dose").agg(pl.col("value").median())
    assert list(thick[0].get_ydata()) == medians.sort("dose")["value"].to_list()


def test_the_caption_tells_medians_counts_and_what_intervals_hold(rows):
    told = figure.plate(rows, NONE).caption
    median = rows.filter(metric="transfer_efficiency", map="affine", dose=1.0)["value"].median()
    assert f"affine {median:.2f}" in told
    assert "3 seeds (0, 1, 2), 3 unordered pairs" in told
    assert "60 documents" in told
    assert "no uncertainty between seeds" in told
    assert "Not drawn" not in told


def test_what_is_left_out_is_said(rows):
    eight = pl.concat([rows.with_columns(contrast=pl.lit(f"contrast {i}")) for i in range(8)])
    plate = figure.plate(eight, NONE)
    assert "2 contrasts" in plate.caption
    assert len(plate.figure.axes) == 2 * figure.MOST
    far = pl.col("metric").eq("transfer_efficiency") & pl.col("map").eq("identity") & pl.col("dose").eq(1.0)
    beyond = rows.with_columns(value=pl.when(far).then(9.0).otherwise("value"), high=pl.lit(9.0))
    assert "6 dots beyond −1 to 2.5" in figure.plate(beyond, NONE).caption


def test_hostile_names_are_drawn_as_they_are(rows):
    for name in ("$\\frac{$", "<script>alert(1)</script>"):
        named = rows.with_columns(contrast=pl.lit(name))
        svg = saved(figure.plate(named, NONE).figure, "svg")
        ElementTree.fromstring(svg)
        assert b"<script" not in svg


def test_without_a_regime_there_is_no_figure(rows):
    missing = figure.plate(rows.filter(pl.col("metric") != "regime"), NONE)
    assert isinstance(missing, Missing)
    assert missing.reason.endswith(".")
