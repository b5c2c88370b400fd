"""Do the members compute the same function? Divergence and agreement of their answers, by head and distribution."""

from dataclasses import dataclass

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.evidence.function_scores import SUM
from polymorph.plotting.captions import Pairs, steps_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.sae_panels import lane, median
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import CEILING, CONTROL_COLOURS, grid, style
from polymorph.plotting.wording import between, listed, number, plain
from polymorph.studies.equivalence.answers import CHANCE, CONSTANT, EARLY, UNTRAINED

NAME, TITLE = "equivalence", "Answers of the members beside one another"
RELATIVE, AGREEMENT = "relative_kl", "agreement"
NEARLY_NOTHING = 1e-3  # of the divergence from a constant: below, the axis is linear
MOST_COLUMNS = 3


@dataclass(frozen=True)
class Series:
    """One lane of a row."""

    strip: Strip
    role: str = "estimate"
    control: str | None = None

    def of(self, rows: pl.DataFrame, metric: str) -> pl.DataFrame:
        """Its rows, one a directed pair; a head stands where figures of sites have a site."""
        chosen = rows.filter(pl.col("control").eq_missing(self.control), metric=metric, role=self.role)
        return chosen.with_columns(site=pl.col("head")).sort("source", "target")


MEMBERS = Series(Strip("two members", "#0072b2"))
WITHIN = Series(Strip("one member, last two checkpoints: the ceiling", CEILING, filled=False), "ceiling")
EARLIER = Series(Strip("two members, early in training", "#d55e00", "s", False), "control", EARLY)
BEFORE = Series(Strip("two members, untrained", "#8c8c8c", "P"), "control", UNTRAINED)
LUCK = Series(
    Strip("by chance", CONTROL_COLOURS["covariance_only"], "^", False, median=False), "control", CHANCE
)
SERIES = (MEMBERS, WITHIN, EARLIER, BEFORE, LUCK)


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """From the rows alone, which count their own documents and tokens."""
    if MEMBERS.of(rows, "kl").is_empty():
        return Missing(NAME, TITLE, "No two members were asked for their answers: that needs models.")
    return Plate(NAME, TITLE, _caption(rows), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A column a distribution: above the divergence, below the agreement; a row a head."""
    heads = _heads(rows)
    distributions = _distributions(rows)[:MOST_COLUMNS]
    series = [one for one in SERIES if any(not one.of(rows, m).is_empty() for m in (RELATIVE, AGREEMENT))]
    height = 2 * len(heads) * (0.16 + 0.13 * len(series)) + 2.4
    with style():
        figure, cells = grid(2, len(distributions), height, sharex="row", sharey=True)
        for column, distribution in enumerate(distributions):
            here = rows.filter(distribution=distribution)
            for axes, metric in ((cells[0][column], RELATIVE), (cells[1][column], AGREEMENT)):
                for place, one in enumerate(series):
                    lane(one.strip, place, len(series)).draw(axes, heads, one.of(here, metric))
                _rows_of(axes, len(heads))
            cells[0][column].set_title(plain(distribution))
        cells[0][0].set_yticks(range(len(heads)), [plain("all heads" if h == SUM else h) for h in heads])
        _divergence_axes(cells[0], pl.concat([one.of(rows, RELATIVE) for one in series]))
        _agreement_axes(cells[1])
        figure.legend(handles=[one.strip.handle for one in series], loc="outside upper left", ncols=3)
        return settle(figure)


def _rows_of(axes: Axes, count: int) -> None:
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(count - 0.5, -0.5)
    for edge in range(1, count):
        axes.axhline(edge - 0.5, color="#ececec", linewidth=0.8, zorder=0.5)


def _divergence_axes(cells: list[Axes], rows: pl.DataFrame) -> None:
    """Shares, logarithmic above `NEARLY_NOTHING`, with the constant answer as a line."""
    most = max(1.6 * float(rows["value"].max()), 3.0) if rows.height else 3.0  # type: ignore[arg-type]
    marks = [0.0, *(10.0**power for power in range(-3, 6) if 10.0**power <= most)]
    for axes in cells:
        axes.set_xscale("symlog", linthresh=NEARLY_NOTHING, linscale=0.9)
        axes.set_xlim(-0.25 * NEARLY_NOTHING, most)
        axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
        axes.set_xticks([], minor=True)
        axes.tick_params(labelbottom=True)
        axes.axvline(1, color="#9a9a9a", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.9)
    cells[len(cells) // 2].set_xlabel("KL in shares of that from a constant answer")


def _agreement_axes(cells: list[Axes]) -> None:
    for axes in cells:
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    cells[len(cells) // 2].set_xlabel("share of tokens with the same most probable class")


def _heads(rows: pl.DataFrame) -> list[str]:
    """The heads by name, and all of them together last."""
    return sorted(rows["head"].drop_nulls().unique().to_list(), key=lambda head: (head == SUM, head))


def _distributions(rows: pl.DataFrame) -> list[str]:
    """The one that members are trained on first."""
    names = rows["distribution"].drop_nulls().unique().to_list()
    return sorted(names, key=lambda name: (name != "train", name))


def _caption(rows: pl.DataFrame) -> str:
    distribution, head = _distributions(rows)[0], _heads(rows)[-1]
    left = _distributions(rows)[MOST_COLUMNS:]
    shown = rows.filter(head=head, distribution=distribution)
    estimates = MEMBERS.of(rows, "kl")
    documents, tokens = (
        between(estimates[f"n_{noun}s"].drop_nulls().unique().to_list(), noun)
        for noun in ("document", "token")
    )
    sentences = [
        f"Above, the divergence KL(p ‖ q) of the answers of two members at {steps_behind(estimates)}, one dot a "
        "directed pair, on held-out inputs of each evaluation distribution and by head, in shares of what p is from "
        "its own mean, the nearest answer that is always the same.",
        "0 is one function; at the dashed line, 1, the other member says no more of p than that constant (linear "
        f"below {NEARLY_NOTHING:g}, logarithmic above). Of a head that has nearly the same answer everywhere, it is a "
        "share of nearly nothing.",
        "Below, on which share of the tokens the most probable class is the same, beside what the frequencies of the "
        "two members' answers give by chance. All heads: the sum of their divergences, and agreement of every one.",
        f"On {plain(distribution)}, {_head_name(head)}, in nats a token: {_nats(shown)}.",
        _losses(shown),
        "Untrained members answer nearly alike without having learned anything, so a small KL in nats is no sign of "
        "one function; in shares it is not small."
        if BEFORE.of(rows, RELATIVE).height
        else "",
        f"Data: {Pairs.of(rows)}; a distribution: {documents}, {tokens}.",
        "Whiskers are 95 % intervals by a delete-one-block jackknife over documents, and hold nothing of what differs "
        "between seeds; pairs share seeds. The ceiling holds what one member learned between its last two "
        "checkpoints, so it depends on how far apart those are.",
        f"Not drawn: {listed(left)}." if left else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _head_name(head: str) -> str:
    return "all heads" if head == SUM else f"head {plain(head)}"


def _nats(shown: pl.DataFrame) -> str:
    """The median divergences of the series, as text."""
    alone = shown.filter(metric="kl", control=CONSTANT)
    each = [
        ("two members", median(MEMBERS.of(shown, "kl"))),
        ("one member at its last two checkpoints", median(WITHIN.of(shown, "kl"))),
        ("early in training", median(EARLIER.of(shown, "kl"))),
        ("untrained", median(BEFORE.of(shown, "kl"))),
        ("from the nearest constant answer", median(alone)),
    ]
    return ", ".join(f"{name} {number(value)}" for name, value in each if value is not None) + " (medians)"


def _losses(shown: pl.DataFrame) -> str:
    losses = shown.filter(metric="loss", role="estimate")["value"]
    constant = shown.filter(metric="loss", control=CONSTANT)["value"]
    low, high = (number(float(end)) for end in (losses.min(), losses.max()))  # type: ignore[arg-type]
    alone = "" if constant.is_empty() else f"; the best constant answer has {number(constant[0])}"
    return f"Losses of the members there: {low} to {high}{alone}."
