"""Do steering vectors work on other members? Dose curves, transfer efficiencies, and how often which regime is met."""

from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from polymorph.alignment.families import in_ladder_order
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import (
    CEILING,
    CONTROL_COLOURS,
    INK,
    control_name,
    grid,
    map_colour,
    style,
)
from polymorph.plotting.wording import plain
from polymorph.steering.regimes import CLEAN, REGIMES
from polymorph.studies.steering.caption import (
    ACROSS,
    GREATEST,
    LEAST,
    MOST,
    caption,
    contrast_count,
    contrast_names,
    shown_rows,
    systematic_rows,
)

NAME, TITLE = "steering", "Steering vectors on other members"
SHUFFLED = "tokens_permuted"
NULL = "#d9d9d9"
REGIME_COLOURS = {
    "clean": "#009e73",
    "partial": "#8fd0b8",
    "overdriven": "#e69f00",
    "inverted": "#c0392b",
    "none": "#bdbdbd",
    "undetermined": "#ececec",
}


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """From the rows; `ladder` lends the counts of the fit split."""
    if rows.filter(metric="regime").is_empty():
        return Missing(NAME, TITLE, "No vector of one member was added to another's residual stream.")
    return Plate(NAME, TITLE, caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A column for each contrast with a name: doses above, efficiencies below; then the systematic directions."""
    contrasts = contrast_names(rows)[:MOST]
    many = not systematic_rows(rows).is_empty()
    blocks = -(-len(contrasts) // ACROSS)
    columns = max(1, min(len(contrasts), ACROSS)) if contrasts else 1
    columns = 2 if many and columns == 1 else columns
    high = 2 * blocks + many
    with style():
        ratios = [1.15, 1.0] * blocks + [1.0] * many
        options = {"sharex": False, "sharey": False, "gridspec_kw": {"height_ratios": ratios}}
        figure, cells = grid(high, columns, 2.15 * high + 0.9, **options)
        for place in range(blocks * columns):
            row, column = 2 * (place // columns), place % columns
            if place < len(contrasts):
                _doses(cells[row][column], rows, contrasts[place])
                _efficiencies(cells[row + 1][column], rows, contrasts[place], column == 0)
            else:
                cells[row][column].remove()
                cells[row + 1][column].remove()
        if many:
            _many(cells[-1], rows)
        if contrasts:
            cells[0][0].set_ylabel("change of log-odds", fontsize=9)
        figure.legend(handles=_handles(rows), loc="outside upper left", ncols=4, fontsize=8.5)
        return settle(figure)


def _doses(axes: Axes, rows: pl.DataFrame, contrast: str) -> None:
    """The change of log-odds by dose: of own vectors, of others' as they are and through R; and of random ones."""
    own = rows.filter(group="named", contrast=contrast, metric="on_target")
    for row in own.filter(role="null").sort("target").iter_rows(named=True):
        axes.vlines(row["dose"], row["low"], row["high"], color=NULL, linewidth=9, zorder=0.6)
    series = [(own.filter(role="ceiling"), CEILING, "-")]
    for name in ("identity", "orthogonal"):
        series.append((own.filter(role="estimate", map=name), map_colour(name), "-"))
    for frame, colour, line in series:
        for _, one in frame.sort("source", "target", "dose").group_by(
            ["source", "target"], maintain_order=True
        ):
            axes.plot(one["dose"], one["value"], line, color=colour, linewidth=0.8, alpha=0.55)
        middle = frame.group_by("dose").agg(pl.col("value").median()).sort("dose")
        axes.plot(middle["dose"], middle["value"], "o-", color=colour, ms=3.2, linewidth=1.9)
    axes.axhline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    axes.set_xscale("log", base=2)
    doses = sorted(own["dose"].unique().to_list())
    axes.xaxis.set_major_locator(FixedLocator(doses))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{dose:g}" for dose in doses])
    axes.set_xlim(doses[0] / 1.3, doses[-1] * 1.3)
    axes.set_xlabel("dose", fontsize=9)
    axes.set_title(plain(contrast))


def _efficiencies(axes: Axes, rows: pl.DataFrame, contrast: str, named: bool) -> None:
    """Transfer efficiency at the dose that is tested, a row a map; the regimes of its pairs beside it."""
    regimes = rows.filter(group="named", contrast=contrast, metric="regime")
    found = shown_rows(rows).filter(group="named", contrast=contrast)
    lines = _lines(rows)
    axes.axvspan(*CLEAN, color=REGIME_COLOURS["clean"], alpha=0.13, linewidth=0)
    axes.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    for place, (name, control) in enumerate(lines):
        about = pl.col("map").eq(name) & pl.col("control").eq_missing(pl.lit(control))
        colour = map_colour(name) if control is None else CONTROL_COLOURS[control]
        values = found.filter(about & pl.col("value").is_between(LEAST, GREATEST)).sort("source", "target")
        held = values.with_columns(pl.col("low", "high").clip(LEAST, GREATEST), site=pl.lit("here"))
        marker = "o" if control is None else "D"
        Strip("", colour, marker, offset=place, spread=0.2, median=False).draw(axes, ["here"], held)
        middle = found.filter(about)["value"].median()
        if isinstance(middle, float) and LEAST <= middle <= GREATEST:
            axes.vlines(middle, place - 0.3, place + 0.3, color=colour, linewidth=1.8)
        _shares(axes, place, regimes.filter(about))
    axes.set_yticks(range(len(lines)), [_line(*line) for line in lines] if named else [""] * len(lines))
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(LEAST - 0.1, GREATEST + 1.55)
    axes.xaxis.set_major_locator(FixedLocator([-1, 0, 1, 2]))
    axes.grid(False, axis="y")
    axes.set_xlabel("transfer efficiency | regimes", fontsize=9)


def _lines(rows: pl.DataFrame) -> list[tuple[str, str | None]]:
    """Maps of the named contrasts in the order of the ladder, then the control."""
    regimes = rows.filter(group="named", metric="regime")
    estimates = regimes.filter(pl.col("control").is_null())["map"].unique().to_list()
    lines: list[tuple[str, str | None]] = [(name, None) for name in in_ladder_order(estimates)]
    controls = regimes.filter(pl.col("control").is_not_null())
    return lines + [("orthogonal", control) for control in sorted(controls["control"].unique().to_list())]


def _line(name: str, control: str | None) -> str:
    return name.replace("_", " ") if control is None else control_name(control)


def _shares(axes: Axes, place: float, regimes: pl.DataFrame) -> None:
    """A bar whose parts are the shares of the regimes, right of the scale."""
    start, width, n = GREATEST + 0.15, 1.3, max(regimes.height, 1)
    for regime in REGIMES:
        share = width * regimes.filter(regime=regime).height / n
        axes.barh(
            place,
            share,
            0.55,
            start,
            color=REGIME_COLOURS[regime],
            edgecolor="white",
            linewidth=0.5,
            zorder=2,
        )
        start += share


def _many(cells: Sequence[Axes], rows: pl.DataFrame) -> None:
    """Of the systematic directions: what foretells the efficiency of vectors as they are, and through R."""
    wanted = [
        ("identity", "cosine_turned", "cos(v, R v)"),
        ("orthogonal", "cosine_mapped", "cos(R v, own v)"),
    ]
    for axes, (name, predictor, label) in zip(cells[-2:], wanted, strict=True):
        about = rows.filter(group="systematic")
        keys = ["source", "target", "contrast"]
        found = shown_rows(about).filter(map=name).select(*keys, "value")
        x = about.filter(metric=predictor).select(*keys, at="value")
        regimes = about.filter(metric="regime", map=name).select(*keys, "regime")
        both = found.join(x, on=keys).join(regimes, on=keys).sort(keys)
        for regime in reversed(REGIMES):
            some = both.filter(regime=regime)
            values = some["value"].clip(LEAST, GREATEST)
            axes.plot(some["at"], values, "o", ms=2.4, color=REGIME_COLOURS[regime], alpha=0.8)
        axes.axhspan(*CLEAN, color=REGIME_COLOURS["clean"], alpha=0.13, linewidth=0)
        axes.axhline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
        axes.set_ylim(LEAST - 0.12, GREATEST + 0.12)
        axes.set_xlabel(label, fontsize=9)
        axes.set_title(f"{contrast_count(rows)} directions: {name}")
    cells[-2].set_ylabel("transfer efficiency", fontsize=9)
    for axes in cells[:-2]:
        _regime_bars(axes, rows)


def _regime_bars(axes: Axes, rows: pl.DataFrame) -> None:
    """Shares of the regimes of the systematic directions, a bar a map."""
    regimes = systematic_rows(rows)
    maps = in_ladder_order(regimes["map"].unique().to_list())
    for place, name in enumerate(maps):
        start, own = 0.0, regimes.filter(map=name)
        for regime in REGIMES:
            share = own.filter(regime=regime).height / own.height
            axes.barh(
                place, share, 0.6, start, color=REGIME_COLOURS[regime], edgecolor="white", linewidth=0.5
            )
            start += share
    axes.set_yticks(range(len(maps)), maps)
    axes.set_ylim(len(maps) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(False, axis="y")
    axes.set_xlabel("share of pairs and directions", fontsize=9)
    axes.set_title("systematic directions")


def _handles(rows: pl.DataFrame) -> list[Line2D | Patch]:
    lines: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker="o", ms=3.5, label=label)
        for label, colour in (
            ("own vector (ceiling)", CEILING),
            ("another's, as it is", map_colour("identity")),
            ("another's, through R", map_colour("orthogonal")),
        )
    ]
    null = Patch(color=NULL, label="random directions (null)")
    patches = [
        Patch(facecolor=REGIME_COLOURS[one], edgecolor=INK, linewidth=0.3, label=one) for one in REGIMES
    ]
    return [*lines, null, *patches]
