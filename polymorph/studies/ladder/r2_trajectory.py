"""When do members come to differ by a rotation? R² of a few maps against training step, site by site."""

from dataclasses import dataclass

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import R2_DEFINITION, data_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import (
    CEILING,
    CONTROL_COLOURS,
    R2_FLOOR,
    R2_SCALE,
    control_name,
    map_colour,
    r2_axis,
    site_grid,
    step_axis,
    style,
    zero_line,
)
from polymorph.plotting.table_rows import at_site, scores
from polymorph.plotting.wording import counted, listed, number, whole

NAME, TITLE = "r2_trajectory", "R² over training"


@dataclass(frozen=True)
class Series:
    """One line: which `r2` rows, and how they look."""

    label: str
    map: str
    role: str
    colour: str
    dashes: str | tuple[int, tuple[int, ...]]
    control: str | None = None

    def of(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Its rows."""
        return scores(frame, self.map, self.role, self.control)


SERIES = (
    Series("orthogonal", "orthogonal", "estimate", map_colour("orthogonal"), "-"),
    Series("identity", "identity", "estimate", map_colour("identity"), "-"),
    *(
        Series(f"{control_name(name)} (control)", "orthogonal", "control", CONTROL_COLOURS[name], "--", name)
        for name in ("tokens_permuted", "documents_permuted")
    ),
    Series("ceiling", "orthogonal", "ceiling", CEILING, (0, (5, 2))),
)


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Lines over the steps at which pairs were compared; `Missing` with fewer than two."""
    shown = in_step(rows)
    reason = no_trajectory(shown.filter((pl.col("role") == "estimate") & (pl.col("metric") == "r2")))
    if reason is not None:
        return Missing(NAME, TITLE, reason)
    return Plate(NAME, TITLE, _caption(shown, rows), draw(shown))


def in_step(ladder: pl.DataFrame) -> pl.DataFrame:
    """Pairs of members at equal steps, and ceilings; the column `step` is where they stand."""
    equal = pl.col("source_step") == pl.col("target_step")
    return ladder.filter(equal | (pl.col("role") == "ceiling")).with_columns(step=pl.col("target_step"))


def no_trajectory(estimates: pl.DataFrame) -> str | None:
    """Why there is no trajectory, if so."""
    steps = estimates["step"].unique().to_list()
    if not steps:
        return "No pair of members was compared at equal steps, so there is no trajectory."
    if len(steps) == 1:
        return f"Members were compared at one step only ({whole(steps[0])}), so there is no trajectory."
    return None


def draw(rows: pl.DataFrame) -> Figure:
    """A panel a site; `rows` as from `in_step`."""
    estimates = rows.filter(pl.col("role") == "estimate")
    sites = sites_in_order(estimates)
    present = [series for series in SERIES if not series.of(rows).is_empty()]
    with style():
        figure, panels = site_grid(sites)
        for axes, site in zip(panels, sites, strict=True):
            for series in present:
                line_and_band(
                    axes, series.of(at_site(rows, site)), series.colour, series.dashes, series.label
                )
            zero_line(axes)
            step_axis(axes, int(rows["step"].max()))  # type: ignore[arg-type]
        r2_axis(panels[0], min(float(series.of(rows)["value"].min()) for series in present))  # type: ignore[arg-type]
        figure.supxlabel("training step", fontsize=10)
        figure.supylabel("R² on the eval split", fontsize=10)
        figure.legend(handles=panels[0].get_lines()[: len(present)], loc="outside upper left", ncols=3)
        return settle(figure)


def line_and_band(
    axes: Axes, rows: pl.DataFrame, colour: str, dashes: str | tuple[int, tuple[int, ...]], label: str
) -> None:
    """The median over pairs against `step`, and the band from the least to the greatest."""
    at = rows.group_by("step").agg(
        low=pl.col("value").min(), median=pl.col("value").median(), high=pl.col("value").max()
    )
    at = at.sort("step")
    axes.fill_between(at["step"], at["low"], at["high"], color=colour, alpha=0.18, linewidth=0)
    marker = "o" if at.height < 25 else ""
    axes.plot(at["step"], at["median"], color=colour, linestyle=dashes, marker=marker, ms=2.6, label=label)


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    steps = sorted(rows.filter(pl.col("role") == "estimate")["step"].unique().to_list())
    sentences = [
        f"R² against training step at {len(steps)} steps ({listed([whole(s) for s in steps])}; 0 to 1 "
        "linear, logarithmic above): lines are medians, bands reach from the least to the greatest of all "
        "directed pairs.",
        R2_SCALE,
        _ceiling_sentence(rows),
        R2_DEFINITION,
        f"Data: {data_behind(rows)}",
        "A band is the spread of pairs, which share seeds, and no interval; that of each score "
        "(delete-one-block jackknife over documents) stands in the ladder's table, as low and high.",
    ]
    low = {s.label: s.of(rows).filter(pl.col("value") < R2_FLOOR).height for s in SERIES}
    if any(low.values()):
        each = ", ".join(f"{label} {n}" for label, n in low.items() if n)
        sentences.append(f"Scores below {number(R2_FLOOR, 0)} lie off the scale ({each}).")
    return " ".join(sentences + unequal_sentence(ladder))


def unequal_sentence(ladder: pl.DataFrame) -> list[str]:
    """How many comparisons the trajectories leave out."""
    unequal = ladder.filter((pl.col("role") == "estimate") & (pl.col("source_step") != pl.col("target_step")))
    n = unequal.select("source", "target", "source_step", "target_step").unique().height
    return [f"{counted(n, 'comparison')} at unequal steps are not shown."] if n else []


def _ceiling_sentence(rows: pl.DataFrame) -> str:
    ceilings = rows.filter(pl.col("role") == "ceiling")
    if ceilings.is_empty():
        return "There is no ceiling: no seed was read at two steps."
    return (
        "The ceiling is the orthogonal map of one seed from an earlier step to a later one, drawn at the "
        f"later ({counted(ceilings['source'].n_unique(), 'seed')})."
    )
