"""Do the same parts matter in every member? Effects by component, who predicts them, and components taken together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from polymorph.evidence.function_scores import SUM
from polymorph.plotting.captions import study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import INK, NAMED_SEEDS, grid, seed_colours, style
from polymorph.plotting.wording import listed, number, plain, spread
from polymorph.studies.components.members import ABLATION, INTEGRATED, PATCHING
from polymorph.studies.components.rankings import BLOCK, PARTS, STREAM

NAME, TITLE = "components", "What members lose without each component, and who says so"
GREY, BLUE, RED = "#8c8c8c", "#0072b2", "#d55e00"
ROW = 0.24  # inches
CURVES, LEFT_OUT = "cumulative_effect", "leave_one_out"
KEY = ["source", "target", "source_step"]


@dataclass(frozen=True)
class Series:
    """One row of correlations."""

    label: str
    attribution: str
    assignment: str | None
    role: str
    colour: str

    def of(self, rows: pl.DataFrame, role: str | None = None, statistic: str = "pearson") -> pl.DataFrame:
        """Null stands for the only assignment there is."""
        found = rows.filter(
            pl.col("metric") == "effect_correlation",
            pl.col("statistic") == statistic,
            pl.col("kind") == PARTS,
            pl.col("convention").is_null(),
            pl.col("attribution") == self.attribution,
            pl.col("role") == (role or self.role),
            (pl.col("source") == pl.col("target")) == (self.role == "ceiling"),
            pl.col("assignment").fill_null("name") == (self.assignment or "name"),
        )
        return found.sort("source", "target")


SERIES = (
    Series("gradients, own", INTEGRATED, "name", "ceiling", INK),
    Series("slope, own", PATCHING, "name", "ceiling", RED),
    Series("own earlier step", ABLATION, "name", "ceiling", INK),
    Series("another's, by name", INTEGRATED, "name", "estimate", BLUE),
    Series("another's, best match", INTEGRATED, "best", "estimate", BLUE),
)


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Of all heads of the answer together; `ladder` lends the counts of the fit split."""
    if of_parts(rows).is_empty():
        return Missing(NAME, TITLE, "No component was ablated: that needs members that are models.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def of_parts(rows: pl.DataFrame) -> pl.DataFrame:
    """Effects of heads and MLPs, of all heads of the answer together or of the only one."""
    effects = rows.filter(metric="ablation_effect").filter(~pl.col("kind").is_in([BLOCK, STREAM]))
    heads = sorted(effects["head"].drop_nulls().unique().to_list())
    return effects.filter(pl.col("head") == (SUM if SUM in heads else heads[0])) if heads else effects


def draw(rows: pl.DataFrame) -> Figure:
    """A row a component; a row a kind of prediction; and what rankings come to."""
    effects, colours = of_parts(rows), seed_colours(of_parts(rows)["target"].unique().to_list())
    names = sorted(effects["component"].unique().to_list(), key=_place)
    height = 1.9 + ROW * max(len(names), 2 * len(SERIES))
    with style():
        figure, ((left, middle, right),) = grid(
            1, 3, height, sharex=False, sharey=False, gridspec_kw={"width_ratios": [1.1, 1.0, 1.0]}
        )
        _effects(left, rows, effects, names, colours)
        _correlations(middle, rows)
        _curves(right, rows)
        figure.legend(handles=_handles(colours), loc="outside upper left", ncols=4)
        return settle(figure)


def _place(name: str) -> tuple[int, bool, int, str]:
    """By layer, heads by number, then what is no head."""
    layer, _, head = name.removeprefix("L").partition("H")
    digits = "".join(c for c in layer if c.isdigit())
    return int(digits or 0), not head.isdigit(), int(head) if head.isdigit() else 0, name


def _effects(
    axes: Axes, rows: pl.DataFrame, effects: pl.DataFrame, names: list[str], colours: dict[int, str]
) -> None:
    """Measured as dots with intervals, the slope at the clean run as crosses."""
    place, lanes = {name: row for row, name in enumerate(names)}, np.linspace(-0.25, 0.25, len(colours))
    patched = rows.filter(metric=PATCHING).filter(~pl.col("kind").is_in([BLOCK, STREAM]))
    for offset, (seed, colour) in zip(lanes if len(colours) > 1 else [0.0], colours.items(), strict=True):
        own = effects.filter(pl.col("target") == seed).sort("component")
        y = np.array([place[name] for name in own["component"]]) + offset
        known = own["low"].is_not_null().to_numpy()
        low, high = (own[side].fill_null(0.0).to_numpy()[known] for side in ("low", "high"))
        axes.hlines(y[known], low, high, color=colour, linewidth=0.9, alpha=0.6)
        axes.plot(own["value"], y, "o", color=colour, markersize=3.6)
        slope = patched.filter(pl.col("target") == seed).sort("component")
        y = np.array([place[name] for name in slope["component"]]) + offset
        axes.plot(slope["value"], y, "x", color=RED, markersize=3.4, alpha=0.8)
    axes.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.set_xlabel("effect, nats a token")
    axes.set_title("single components")


def _correlations(axes: Axes, rows: pl.DataFrame) -> None:
    """Dots with intervals, and behind them 95 % of what other assignments of the heads give."""
    shown = [one for one in SERIES if not one.of(rows).is_empty()]
    for row, one in enumerate(shown):
        found, null = one.of(rows), one.of(rows, "null")
        y = row + (np.linspace(-0.28, 0.28, found.height) if found.height > 1 else np.zeros(1))
        pairs = list(zip(found["source"], found["target"], found["source_step"], strict=True))
        for source, target, step, value, low, high in null.select(
            "source", "target", "source_step", "value", "low", "high"
        ).iter_rows():
            if (source, target, step) in pairs:
                at = y[pairs.index((source, target, step))]
                axes.hlines(at, low, high, color="#dcdcdc", linewidth=3.2, zorder=0.8)
                axes.plot(value, at, "|", color=GREY, markersize=5, zorder=0.9)
        known = found["low"].is_not_null().to_numpy()
        low, high = (found[side].fill_null(0.0).to_numpy()[known] for side in ("low", "high"))
        axes.hlines(y[known], low.clip(-1), high.clip(max=1), color=one.colour, linewidth=0.9, alpha=0.6)
        axes.plot(found["value"], y, "o", color=one.colour, markersize=3.6)
        left = one.of(rows, statistic=LEFT_OUT).group_by(KEY).agg(pl.col("value").min())
        least = found.select(KEY).join(left, on=KEY, how="left", maintain_order="left")["value"]
        axes.plot(least.to_numpy(), y, "o", color=one.colour, mfc="white", markersize=3.2, zorder=1.9)
    axes.set_yticks(range(len(shown)), [one.label for one in shown], fontsize=8)
    axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    axes.set_xlim(-1.05, 1.05)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.set_xlabel("Pearson's r with effects")
    axes.set_title("what predicts them")


def _curves(axes: Axes, rows: pl.DataFrame) -> None:
    """In shares of the effect of all components together."""
    curves = rows.filter(metric=CURVES)
    whole = (
        curves.filter(pl.col("order") == "own")
        .group_by("target")
        .agg(pl.col("value").sort_by("removed").last())
    )
    scale = dict(whole.sort("target").iter_rows())
    for seed, own in _by_line(curves.filter(pl.col("order") == "random", pl.col("assignment") == "name")):
        low, high = (own[side].to_numpy() / scale[seed] for side in ("low", "high"))
        axes.fill_between(own["removed"], low, high, color=GREY, alpha=0.15, linewidth=0)
        axes.plot(own["removed"], own["value"].to_numpy() / scale[seed], color=GREY, linewidth=1.0)
    others = curves.filter(
        pl.col("order") == "source", pl.col("assignment") == "name", pl.col("source") != pl.col("target")
    )
    for seed, own in _by_line(others):
        axes.plot(own["removed"], own["value"].to_numpy() / scale[seed], color=BLUE, linewidth=1.0, alpha=0.8)
    for seed, own in _by_line(curves.filter(pl.col("order") == "own")):
        axes.plot(own["removed"], own["value"].to_numpy() / scale[seed], color=INK, linewidth=1.3)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("components removed")
    axes.set_ylabel("share of the whole effect")
    axes.set_title("components together")


def _by_line(curves: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """Target and curve, in a fixed order."""
    ends = curves.select("target", "source").unique().sort("target", "source", nulls_last=False)
    for target, source in ends.iter_rows():
        own = curves.filter(pl.col("target") == target, pl.col("source").eq_missing(source))
        yield target, own.sort("removed")


def _handles(colours: dict[int, str]) -> list[Line2D]:
    seeds = [
        Line2D([], [], linestyle="", marker="o", color=colour, ms=4, label=f"seed {seed}, measured")
        for seed, colour in colours.items()
    ]
    slope = Line2D([], [], linestyle="", marker="x", color=RED, ms=4, label="slope at the clean run")
    left = Line2D(
        [], [], linestyle="", marker="o", color=INK, mfc="white", ms=4, label="r, least without one"
    )
    lines = [
        Line2D([], [], color=colour, label=label)
        for colour, label in ((INK, "by its own effects"), (BLUE, "by another's"), (GREY, "at random (null)"))
    ]
    return [*(seeds if len(seeds) <= NAMED_SEEDS else []), slope, left, *lines]


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    told = [
        f"{one.label} {spread(one.of(rows)['value'], 2)}" for one in SERIES if not one.of(rows).is_empty()
    ]
    gain = rows.filter(metric="ranking_gain", role="estimate", assignment="name")["value"]
    points = rows.filter(metric="ig_points")["value"]
    sentences = [
        "Left, what a member loses when one head or MLP is held at its mean over the fit split, with its 95 % "
        "interval; crosses are what attribution patching makes of it, the slope at the clean run.",
        "Middle, Pearson's r of predictions with these effects, over heads and MLPs: integrated gradients of the "
        "member itself, which are complete, so that r = 1 says nothing of the member; the slope; the effects at its "
        "previous checkpoint (the ceiling); and another member's integrated gradients, with heads as they are numbered "
        "and under the best match within layers. Grey bars hold 95 % of the null: heads in any order within layers, "
        "and for the best match heads dealt out to the layers at random and matched again. Open dots are r without "
        "the one component on which it rests most.",
        "Right, the effect of the first k components together, ranked by the member's own effects, by another "
        "member's integrated gradients, and at random.",
    ]
    if told:
        sentences.append(f"Median [least, greatest]: {'; '.join(told)}.")
    if len(gain):
        sentences.append(
            f"Of what its own ranking gains over random ones, another's gains {spread(gain, 2)}."
        )
    if len(points):
        error = float(rows.filter(metric="ig_error")["value"].max())  # type: ignore[arg-type]
        most = int(points.max())  # type: ignore[arg-type]
        sentences.append(
            f"Integrated gradients: the midpoint rule with at most {most:,} points, off by at most "
            f"{number(100 * error, 2)} %."
        )
    blocks = [text for kind in (BLOCK, STREAM) if (text := _blocks(rows, kind))]
    sentences += [f"For {listed(blocks)}."] if blocks else []
    return " ".join(
        [
            *sentences,
            f"Data: {study_behind(rows, ladder, ('fit', 'eval'))}",
            "Intervals are by a delete-one-block jackknife over these documents with means, rankings and assignments "
            "held fixed.",
        ]
    )


def _blocks(rows: pl.DataFrame, kind: str) -> str:
    """Correlations over blocks, of one member's own predictions."""
    own = rows.filter(
        pl.col("metric") == "effect_correlation",
        pl.col("statistic") == "pearson",
        pl.col("kind") == kind,
        pl.col("role") == "ceiling",
        pl.col("convention").is_null(),
    )
    name = {BLOCK: "what blocks add", STREAM: "whole streams after blocks"}[kind]
    each = [
        f"r of {label} {spread(own.filter(pl.col('attribution') == attribution)['value'], 2)}"
        for attribution, label in ((INTEGRATED, "gradients"), (PATCHING, "the slope"))
        if own.filter(pl.col("attribution") == attribution).height
    ]
    return f"{name}, {' and '.join(each)}" if each else ""
