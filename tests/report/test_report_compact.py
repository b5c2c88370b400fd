"""A small picture is the same picture; a dense one is shown in points."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.figure import Figure

from polymorph.plotting.plate import Plate
from polymorph.report import inline_svg as pictures
from polymorph.report.compact import as_address, compact
from polymorph.report.figure_files import saved
from polymorph.report.inline_svg import LARGEST, picture

SHAPES = ("path", "use", "image", "rect", "polygon")


def scatter(n: int, label: str = "x") -> Figure:
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot([0.1234567 * i % 1 for i in range(n)], [0.7654321 * i % 1 for i in range(n)], "o-", label=label)
    axes.legend()
    return figure


def drawn(svg: str | bytes) -> list[str]:
    """The shapes outside definitions, in their order."""
    names = [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()]
    return [name for name in names if name in SHAPES]


def test_every_shape_is_kept_and_half_of_the_text_is_not():
    svg = saved(scatter(40), "svg")
    small = compact(svg)
    assert drawn(small) == drawn(svg)
    assert len(small) < 0.6 * len(svg)
    assert "\n" not in small
    assert compact(svg) == small


def test_what_is_pointed_to_is_there_once():
    small = compact(saved(scatter(40), "svg"))
    ids = re.findall(r" id='([^']+)'", small)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:href='#|url\(#)([^')]+)", small)) == set(ids)
    classes = set(re.findall(r" class='([^']+)'", small))
    assert classes
    assert all(f".{name}{{" in small for name in classes)


def test_numbers_are_rounded_to_a_hundredth_of_a_point_and_scales_are_not():
    small = compact(
        b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M 1.23456 -0.001 &#10;L 2.5000 3 z" '
        b'transform="translate(1.23456 2) scale(0.015625)"/></svg>'
    )
    assert "d='M1.23 0L2.5 3z'" in small
    assert "translate(1.23 2) scale(0.015625)" in small


def test_text_in_a_picture_cannot_leave_its_address():
    svg = (
        b'<svg xmlns="http://www.w3.org/2000/svg"><text x="1">a&quot;b &lt;/svg&gt; &amp; 50% #1</text>'
        b'<path d="M 0 0" style="marker: \'x\'"/></svg>'
    )
    address = as_address(compact(svg))
    assert not set('"&#\n') & set(address)
    assert "%25" in address
    assert "%231" in address


def test_a_broken_picture_is_refused():
    with pytest.raises(ElementTree.ParseError):
        compact(b"<svg><g></svg>")


def test_a_dense_figure_is_shown_in_points(monkeypatch):
    light, dense = (Plate("one", "One", "One.", scatter(n)) for n in (10, 8000))
    assert picture(light).startswith("data:image/svg+xml,")
    shown = picture(dense)
    assert shown.startswith("data:image/webp;base64,")
    assert len(shown) < LARGEST
    monkeypatch.setattr(pictures, "LARGEST", 10**9)
    assert picture(dense).startswith("data:image/svg+xml,")
    assert picture(dense) == picture(dense, saved(dense.figure, "svg"))
