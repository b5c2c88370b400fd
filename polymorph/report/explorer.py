"""The numbers of the ladder as a page carries them, to be looked at by site, pair, map and step.

Every R² is a whole number of ten-thousandths in 16 bits, so that a cohort of nine fits. Nothing is computed here but
the least, the middle and the greatest over pairs.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from polymorph.alignment.families import in_ladder_order
from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import R2_DEFINITION, data_behind
from polymorph.plotting.style import (
    CEILING,
    CONTROL_COLOURS,
    control_name,
    map_colour,
)
from polymorph.plotting.table_rows import at_site, dimension, measured, scores
from polymorph.plotting.wording import counted, printable
from polymorph.studies.ladder.r2_trajectory import in_step

MOST_NUMBERS = 300_000
"""Of single pairs in a page. Of a cohort with more, a page holds the spread over pairs alone."""
NOTHING = -32768
LARGEST = 32767
FINE, COARSE = 1e-4, 1e-2
"""Units: of R², hence between −3.2767 and 3.2767; of ‖R − I‖, dimensions and the like."""
SINGLE = -1
"""The place of members that stand at no step."""


@dataclass(frozen=True)
class Explorer:
    """`numbers` is for the page's script; the others say what it holds."""

    numbers: Mapping[str, Any]
    steps: int
    single_pairs: bool
    unequal: int
    """Comparisons at unequal steps, which are not in it."""

    def caption(self, ladder: pl.DataFrame) -> str:
        """What is behind the numbers, and how they are shown."""
        kept = (
            "For a single pair the range is its 95 % interval over documents, where the table has one, and the "
            "ceiling is its target's."
            if self.single_pairs
            else "There are too many pairs to carry each: those stand in ladder.parquet."
        )
        unequal = (
            f" {counted(self.unequal, 'comparison')} at unequal steps are not shown." if self.unequal else ""
        )
        return (
            f"{data_behind(ladder)} {R2_DEFINITION} R² is held to four decimals, and below −3.27 only as that. "
            "For all pairs the dot is the median and the range reaches from the least to the greatest: that is a "
            f"spread of pairs, which share seeds, and no interval. {kept} R is the orthogonal map of O(d); ‖R − I‖ is "
            f"its trace and nothing else, and Haar's trace has mean 0 and standard deviation 1.{unequal}"
        )

    def json(self) -> str:
        """The numbers as JSON that can stand in a script element: no character of it can end one."""
        text = json.dumps(self.numbers, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        for character in "<>&\u2028\u2029":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text


@dataclass(frozen=True)
class _Axes:
    """What the numbers are about: sites, ends and steps, in the order in which they are carried."""

    sites: Sequence[str]
    pairs: Sequence[tuple[int, int]]
    seeds: Sequence[int]
    steps: Sequence[int]


def explorer_of(ladder: pl.DataFrame) -> Explorer | None:
    """None where no pair of members was compared at equal steps, or at none."""
    single = pl.col("source_step").is_null() & pl.col("target_step").is_null()
    stepped = pl.concat(
        [in_step(ladder.filter(~single)), ladder.filter(single).with_columns(step=pl.lit(SINGLE))],
        how="vertical_relaxed",
    )
    estimates = stepped.filter((pl.col("role") == "estimate") & (pl.col("metric") == "r2"))
    if estimates.is_empty():
        return None
    axes = _Axes(
        sites_in_order(estimates),
        sorted(set(estimates.select("source", "target").iter_rows())),
        sorted(set(estimates["source"]) | set(estimates["target"])),
        sorted(set(estimates["step"])),
    )
    stepped = stepped.filter(pl.col("step").is_in(axes.steps))
    maps = in_ladder_order(estimates["map"].drop_nulls().to_list())
    cells = len(axes.sites) * len(axes.pairs) * len(axes.steps)
    whole = cells * (2 * (len(maps) + len(CONTROL_COLOURS)) + 3) <= MOST_NUMBERS
    numbers = {
        "sites": [printable(site) for site in axes.sites],
        "pairs": [list(pair) for pair in axes.pairs] if whole else [],
        "seeds": list(axes.seeds),
        "steps": [None if step == SINGLE else step for step in axes.steps],
        "dimensions": [dimension(at_site(stepped, site)) for site in axes.sites],
        "r2": _scores(stepped, axes, maps, whole),
        "turn": _measures(stepped, axes, "frobenius_from_identity", whole),
        "turn_of_one": _measures(stepped, axes, "frobenius_from_identity", whole, "ceiling"),
        "determined": _measures(stepped, axes, "determined_dimension", whole),
        "angle": _measures(stepped, axes, "angle_on_support", whole),
    }
    return Explorer(numbers, len(axes.steps), whole, _unequal(ladder))


def _unequal(ladder: pl.DataFrame) -> int:
    unequal = ladder.filter((pl.col("role") == "estimate") & (pl.col("source_step") != pl.col("target_step")))
    return unequal.select("source", "target", "source_step", "target_step").unique().height


def _scores(frame: pl.DataFrame, axes: _Axes, maps: Sequence[str], whole: bool) -> list[dict[str, Any]]:
    """R² of every map, of the orthogonal map under every control, and the ceiling."""
    series: list[tuple[str, str, str, str, str | None]] = [
        (name.replace("_", " "), "map", map_colour(name), name, None) for name in maps
    ]
    series += [
        (control_name(name), "control", colour, "orthogonal", name)
        for name, colour in CONTROL_COLOURS.items()
    ]
    series.append(("ceiling", "ceiling", CEILING, "orthogonal", None))
    found = []
    for label, kind, colour, name, control in series:
        rows = scores(frame, name, "estimate" if kind == "map" else kind, control)
        if not rows.is_empty():
            about = {"name": printable(label), "kind": kind, "colour": colour}
            found.append(about | _carried(rows, axes, FINE, whole))
    return found


def _measures(
    frame: pl.DataFrame, axes: _Axes, metric: str, whole: bool, role: str = "estimate"
) -> dict[str, Any] | None:
    rows = measured(frame, metric, role)
    return None if rows.is_empty() else _carried(rows, axes, COARSE, whole)


def _carried(rows: pl.DataFrame, axes: _Axes, unit: float, whole: bool) -> dict[str, Any]:
    """Least, middle and greatest [sites steps]; with `whole`, values and half widths [sites ends steps].

    The ends are pairs, or where a seed stands against itself, seeds.
    """
    value = pl.col("value")
    spread = rows.group_by("site", "step").agg(low=value.min(), middle=value.median(), high=value.max())
    place = {(site, step): i for i, (site, step) in enumerate(_product(axes.sites, axes.steps))}
    found: dict[str, Any] = {"unit": unit}
    for name in ("low", "middle", "high"):
        found[name] = _packed(
            place, ((row["site"], row["step"], row[name]) for row in spread.to_dicts()), unit
        )
    if whole:
        of_one = bool((rows["source"] == rows["target"]).all())
        ends = [(seed, seed) for seed in axes.seeds] if of_one else list(axes.pairs)
        found["ends"] = "seeds" if of_one else "pairs"
        place_of = {key: i for i, key in enumerate(_product(axes.sites, ends, axes.steps))}
        each = list(rows.select("site", "source", "target", "step", "value", "low", "high").iter_rows())
        found["values"] = _packed(place_of, ((s, (a, b), at, v) for s, a, b, at, v, _, _ in each), unit)
        if rows["low"].is_not_null().any():
            halves = (
                (s, (a, b), at, None if low is None else (high - low) / 2)
                for s, a, b, at, _, low, high in each
            )
            found["halves"] = _packed(place_of, halves, unit)
    return found


def _product(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    keys: list[tuple[Any, ...]] = [()]
    for axis in axes:
        keys = [(*key, one) for key in keys for one in axis]
    return keys


def _packed(place: Mapping[tuple[Any, ...], int], entries: Any, unit: float) -> str:
    """Base64 of little-endian 16-bit integers, in the order of `place`; what lies outside has the value of the end."""
    numbers = np.full(len(place), NOTHING, dtype="<i2")
    for *key, value in entries:
        at = place.get(tuple(key))
        if at is not None and value is not None:
            numbers[at] = max(-LARGEST, min(LARGEST, round(value / unit)))
    return base64.b64encode(numbers.tobytes()).decode("ascii")
