"""The numbers that a page carries are those of the rows, in sixteen bits each."""

import base64
import json

import numpy as np
import polars as pl
import pytest

from polymorph.evidence.rows import sites_in_order
from polymorph.report.explorer import NOTHING, explorer_of


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<i2")


@pytest.fixture(scope="module")
def ladder(planted) -> pl.DataFrame:
    return planted.ladder


def test_every_estimate_is_held_to_half_a_unit(ladder):
    numbers = explorer_of(ladder).numbers
    (series,) = [one for one in numbers["r2"] if one["name"] == "affine"]
    held = unpacked(series["values"]).reshape(
        len(numbers["sites"]), len(numbers["pairs"]), len(numbers["steps"])
    )
    rows = ladder.filter(metric="r2", map="affine", role="estimate").to_dicts()
    assert len(rows) == held.size
    for row in rows:
        place = (
            numbers["sites"].index(row["site"]),
            numbers["pairs"].index([row["source"], row["target"]]),
            numbers["steps"].index(row["target_step"]),
        )
        assert held[place] * series["unit"] == pytest.approx(row["value"], abs=0.5001 * series["unit"])


def test_spreads_are_over_pairs_and_ceilings_over_seeds(ladder):
    numbers = explorer_of(ladder).numbers
    ceiling = numbers["r2"][-1]
    assert (ceiling["kind"], ceiling["ends"]) == ("ceiling", "seeds")
    middle = unpacked(ceiling["middle"]).reshape(3, 3)
    assert (middle[:, 0] == NOTHING).all()  # no step before the first
    rows = ladder.filter(
        metric="r2", map="orthogonal", role="ceiling", site=numbers["sites"][1], target_step=64
    )
    assert middle[1, 2] * ceiling["unit"] == pytest.approx(rows["value"].median(), abs=1e-4)


def test_what_lies_beyond_the_scale_has_the_value_of_its_end(ladder):
    far = ladder.with_columns(value=pl.when(pl.col("map") == "identity").then(-50.0).otherwise("value"))
    numbers = explorer_of(far).numbers
    assert set(unpacked(numbers["r2"][0]["middle"])) == {-32767}


def test_too_many_pairs_leave_their_spread(ladder, monkeypatch):
    whole = explorer_of(ladder)
    monkeypatch.setattr("polymorph.report.explorer.MOST_NUMBERS", 10)
    few = explorer_of(ladder)
    assert whole.single_pairs
    assert not few.single_pairs
    assert few.numbers["pairs"] == []
    assert "values" not in few.numbers["r2"][0]
    assert few.numbers["r2"][0]["middle"] == whole.numbers["r2"][0]["middle"]
    assert "too many pairs" in few.caption(ladder)
    assert "too many pairs" not in whole.caption(ladder)


def test_unequal_steps_are_counted_and_not_shown(ladder):
    moved = (pl.col("source") == 0) & (pl.col("target") == 1) & (pl.col("target_step") == 64)
    unequal = ladder.with_columns(source_step=pl.when(moved).then(4).otherwise("source_step"))
    explorer = explorer_of(unequal)
    assert explorer.unequal == 1
    assert "1 comparison at unequal steps" in explorer.caption(unequal)
    numbers = explorer.numbers
    held = unpacked(numbers["r2"][0]["values"]).reshape(3, 6, 3)
    assert (held[:, numbers["pairs"].index([0, 1]), 2] == NOTHING).all()


def test_members_without_steps_stand_at_one(ladder):
    last = ladder.filter(source_step=64, target_step=64)
    single = last.with_columns(
        pl.lit(None, dtype=pl.Int64).alias(name) for name in ("source_step", "target_step")
    )
    explorer = explorer_of(single)
    assert explorer.numbers["steps"] == [None]
    whole = unpacked(explorer_of(last).numbers["r2"][0]["values"])
    assert (unpacked(explorer.numbers["r2"][0]["values"]) == whole).all()


def test_without_estimates_there_is_none(ladder):
    assert explorer_of(ladder.filter(pl.col("role") != "estimate")) is None
    assert explorer_of(ladder.clear()) is None


def test_names_cannot_end_the_element_that_holds_them(ladder):
    hostile = "</script><!--\u2028&"
    named = ladder.with_columns(site=pl.col("site").replace(sites_in_order(ladder)[0], hostile))
    text = explorer_of(named).json()
    assert not set(text) & set("<>&\u2028\u2029")
    assert any(hostile.removesuffix("\u2028&") in site for site in json.loads(text)["sites"])
