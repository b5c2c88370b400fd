"""The paper's figures for print: their sizes, their fonts, and that what is drawn are the rows."""

import math
import re
import zlib
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest

from polymorph.papers.mccann2026.figures import (
    PAPER_FIGURES,
    firing,
    for_paper,
    rotation,
    sae_transfer,
    steering,
)
from polymorph.papers.mccann2026.figures.sheet import WIDTHS, at_width, place_name, saved_for_print
from polymorph.plotting.plate import Missing, Plate, settle
from polymorph.plotting.style import CONTROL_COLOURS, grid, map_colour
from polymorph.plotting.table_rows import at_last_steps
from polymorph.report.data import ReportData
from polymorph.report.figure_files import saved

NAMES = list(PAPER_FIGURES)


@pytest.fixture(scope="module")
def tables(studied: ReportData) -> Mapping[str, pl.DataFrame]:
    return dict(studied.tables) | {"ladder": at_last_steps(studied.ladder)}


@pytest.fixture(scope="module")
def plates(tables: Mapping[str, pl.DataFrame]) -> dict[tuple[str, int], Plate]:
    found = {(name, columns): for_paper(name, tables, columns) for name in NAMES for columns in WIDTHS}
    assert all(isinstance(plate, Plate) for plate in found.values())
    return found  # type: ignore[return-value]


def test_there_are_four_of_them() -> None:
    assert NAMES == ["sae_transfer", "rotation", "steering", "firing"]
    with pytest.raises(ValueError, match="no figure 'loss'"):
        for_paper("loss", {})


@pytest.mark.parametrize("name", NAMES)
def test_they_are_as_wide_as_one_or_two_columns(plates, name: str) -> None:
    assert [plates[name, columns].figure.get_figwidth() for columns in (1, 2)] == [3.25, 6.75]
    assert all(plates[name, columns].figure.get_figheight() < 9 for columns in (1, 2))
    with pytest.raises(ValueError, match="columns=3"):
        rotation.sheet(1, 1, 3, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_pdf_embeds_its_fonts_and_is_the_same_twice(plates, tables, name: str) -> None:
    data = saved_for_print(plates[name, 1].figure)
    assert b"/FontFile2" in data
    assert b"/Subtype /Type3" not in data
    assert b"CreationDate" not in data
    (box,) = re.findall(rb"/MediaBox \[ ?0 0 ([\d.]+) ", data)
    assert float(box) == pytest.approx(72 * 3.25)
    assert not re.search(rb"/Subtype /Image", data)  # everything in it is drawn by lines
    again = for_paper(
        name, {study: own.sample(fraction=1, shuffle=True, seed=1) for study, own in tables.items()}, 1
    )
    assert isinstance(again, Plate)
    assert drawn(saved_for_print(again.figure)) == drawn(data)


def drawn(pdf: bytes) -> list[bytes]:
    """The streams of a PDF, unpacked."""
    return [zlib.decompress(part) for part in re.findall(rb"stream\r?\n(x.*?)\r?\nendstream", pdf, re.DOTALL)]


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_are_a_reason(tables, name: str) -> None:
    for given in ({}, {study: own.clear() for study, own in tables.items()}):
        missing = for_paper(name, given, 1)
        assert isinstance(missing, Missing)
        assert missing.reason.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_says_how_much_stands_behind_it_and_what_is_sound(plates, name: str) -> None:
    caption = plates[name, 1].caption
    assert "3 seeds (0, 1, 2), 3 unordered pairs" in caption
    assert "tokens" in caption
    assert "interval" in caption.lower()
    assert plates[name, 2].caption == caption


def values_of(axes, colour: str) -> list[float]:
    """All that is drawn as dots of a colour."""
    lines = [line for line in axes.lines if line.get_color() == colour and line.get_linestyle() == "None"]
    return sorted(float(value) for line in lines for value in line.get_ydata())


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("convention", ["paper", "centred"])
def test_the_dots_of_sae_transfer_are_its_rows(plates, tables, columns: int, convention: str) -> None:
    axes = plates["sae_transfer", columns].figure.axes[list(sae_transfer.CONVENTIONS).index(convention)]
    rows = tables["sae_transfer"].filter(metric="explained_variance", convention=convention)
    shown = {
        map_colour("orthogonal"): rows.filter(map="orthogonal", role="estimate"),
        map_colour("identity"): rows.filter(map="identity", role="estimate"),
        CONTROL_COLOURS["covariance_only"]: rows.filter(control="covariance_only"),
    }
    for colour, own in shown.items():
        assert values_of(axes, colour) == pytest.approx(sorted(own["value"]))
        assert own.height == 18  # six directed pairs at three sites


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_dots_of_firing_are_its_rows(plates, tables, columns: int) -> None:
    for axes, convention in zip(plates["firing", columns].figure.axes, firing.CONVENTIONS, strict=True):
        rows = tables["firing"].filter(metric=firing.METRIC, convention=convention, map="orthogonal")
        estimates = rows.filter(role="estimate")
        assert values_of(axes, map_colour("orthogonal")) == pytest.approx(sorted(estimates["value"]))
        assert estimates.height == 18


@pytest.mark.parametrize("columns", WIDTHS)
def test_rotation_draws_every_pair_once_and_the_law_of_its_angles(plates, tables, columns: int) -> None:
    frobenius, angles, support = plates["rotation", columns].figure.axes
    forth = tables["ladder"].filter(pl.col("source") < pl.col("target"), role="estimate", map="orthogonal")
    for axes, metric in ((frobenius, "frobenius_from_identity"), (support, "angle_on_support")):
        assert values_of(axes, map_colour("orthogonal")) == pytest.approx(
            sorted(forth.filter(metric=metric)["value"])
        )
    site = tables["angles"]["site"].unique().sort()[0]
    own = np.sort(tables["angles"].filter(site=site, role="estimate")["value"].to_numpy())
    line = angles.lines[0]
    assert line.get_xdata() == pytest.approx(own)
    assert line.get_ydata()[-1] == pytest.approx(0.5 - own[-1] / (2 * math.pi))


@pytest.mark.parametrize("columns", WIDTHS)
def test_steering_draws_the_papers_ratio_of_every_pair(plates, tables, columns: int) -> None:
    rows = tables["steering"].filter(metric=steering.RATIO, map="orthogonal", role="estimate", group="named")
    rows = rows.filter(pl.col("control").is_null())
    shown = sorted(rows["contrast"].unique())[: steering.MOST]
    figure = plates["steering", columns].figure
    panels = figure.axes[: len(shown)] if columns == 2 else figure.axes[0::2]
    for axes, contrast in zip(panels, shown, strict=True):
        own = sorted(rows.filter(contrast=contrast)["value"])
        assert values_of(axes, map_colour("orthogonal")) == pytest.approx(own)


def test_a_figure_of_the_page_is_scaled_whole() -> None:
    """Eight inches wide, as all of the page are; its inside is not touched."""
    figure, _ = grid(1, 1, 4.0)
    svg = saved(settle(figure), "svg")
    scaled = at_width(svg, 2)
    assert re.search(rb'width="([\d.]+)pt"', scaled)[1] == b"486.0000"  # 6.75 inches of 72 points
    assert re.search(rb'height="([\d.]+)pt"', scaled)[1] == b"243.0000"
    assert scaled[scaled.index(b"viewBox") :] == svg[svg.index(b"viewBox") :]
    with pytest.raises(ValueError, match="no SVG"):
        at_width(b"<html>", 2)


def test_sites_have_short_names() -> None:
    assert place_name("blocks.11.hook_resid_mid") == "11 mid"
    assert place_name("hook_embed") == "hook_embed"
