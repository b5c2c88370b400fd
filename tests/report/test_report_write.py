from dataclasses import replace

import pytest

from polymorph.report.figure_files import figure_files
from polymorph.studies.ladder import frobenius_trajectory, r2_by_site, r2_trajectory


def test_each_figure_is_a_vector_and_a_raster_file(listed, files):
    assert sorted(files) == sorted(f"{plate.name}.{kind}" for plate in listed for kind in ("svg", "png"))
    assert all(content.startswith(b"\x89PNG") for name, content in files.items() if name.endswith("png"))
    assert all(b"<svg" in content for name, content in files.items() if name.endswith("svg"))


def test_the_same_rows_give_the_same_bytes(listed, files, planted):
    assert figure_files(listed[1:2]).items() <= files.items()  # saving changes nothing
    assert b"<dc:date>" not in files["r2_by_site.svg"]
    shuffled = planted.ladder.sample(fraction=1, shuffle=True, seed=3)
    again = [draw.plate(shuffled, shuffled) for draw in (r2_by_site, r2_trajectory, frobenius_trajectory)]
    assert figure_files(again).items() <= files.items()


def test_other_rows_give_other_bytes(files, planted):
    moved = planted.ladder.with_columns(value=planted.ladder["value"] - 0.05)
    other = figure_files([r2_by_site.plate(moved, moved)])
    assert all(content != files[name] for name, content in other.items())


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a b", "x\n", "a" * 65])
def test_an_unsafe_name_is_refused(listed, name):
    with pytest.raises(ValueError, match="safe name"):
        figure_files([replace(listed[0], name=name)])


def test_two_plates_of_one_name_are_refused(listed):
    with pytest.raises(ValueError, match="safe name of its own"):
        figure_files([listed[1], listed[1]])
