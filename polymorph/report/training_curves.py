"""Did the members learn the task, and alike? Accuracy and loss of one head against step, a line a member."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import NAMED_SEEDS, grid, seed_colours, step_axis, style
from polymorph.plotting.table_rows import in_reading_order
from polymorph.plotting.wording import counted, listed, plain

NAME, TITLE = "training_curves", "Training curves"
METRICS = ("accuracy", "loss")


def plate(history: pl.DataFrame) -> Drawn:
    """Curves from a history; `Missing` where it holds no accuracy or loss."""
    rows = history.filter(pl.col("metric").is_in(METRICS) & pl.col("value").is_finite())
    rows = rows.drop_nulls(["seed", "step", "distribution", "head"])
    if rows.is_empty():
        return Missing(NAME, TITLE, "No training history was given, so there are no curves to show.")
    head = _head(rows)
    shown = rows.filter(pl.col("head") == head)
    return Plate(NAME, TITLE, _caption(shown, head, history), draw(shown, head))


def draw(rows: pl.DataFrame, head: str) -> Figure:
    """A column a distribution, a row a metric."""
    distributions = in_reading_order(rows["distribution"].to_list())
    metrics = [metric for metric in METRICS if metric in rows["metric"]]
    colours = seed_colours(rows["seed"].unique().to_list())
    with style():
        figure, cells = grid(len(metrics), len(distributions), 1.0 + 2.1 * len(metrics), sharey="row")
        for metric, row in zip(metrics, cells, strict=True):
            for distribution, axes in zip(distributions, row, strict=True):
                about = (pl.col("metric") == metric) & (pl.col("distribution") == distribution)
                _lines(axes, rows.filter(about).sort("step"), colours)
                step_axis(axes, int(rows["step"].max()))  # type: ignore[arg-type]
            row[0].set_ylabel(plain(f"{head} {metric}"))
            if metric == "loss" and rows.filter(pl.col("metric") == "loss")["value"].min() > 0:  # type: ignore[operator]
                row[0].set_yscale("log")
        for distribution, axes in zip(distributions, cells[0], strict=True):
            axes.set_title(plain(distribution))
        figure.align_ylabels()
        figure.supxlabel("training step", fontsize=10)
        if len(colours) <= NAMED_SEEDS:
            lines = next(axes for row in cells for axes in row if axes.lines).get_lines()
            figure.legend(handles=lines, loc="outside upper left", ncols=6)
        return settle(figure)


def _lines(axes: Axes, rows: pl.DataFrame, colours: dict[int, str]) -> None:
    for seed, colour in colours.items():
        curve = rows.filter(pl.col("seed") == seed)
        axes.plot(curve["step"], curve["value"], color=colour, linewidth=1.4, label=f"seed {seed}")


def _head(rows: pl.DataFrame) -> str:
    heads = sorted(rows["head"].unique().to_list())
    return "depth" if "depth" in heads else str(heads[0])


def _caption(rows: pl.DataFrame, head: str, history: pl.DataFrame) -> str:
    seeds = sorted(rows["seed"].unique().to_list())
    distributions = in_reading_order(rows["distribution"].to_list())
    lost = history.filter(pl.col("value").is_not_null() & ~pl.col("value").is_finite()).height
    sentences = [
        f"Accuracy and loss of the {head} head against training step (0 to 1 linear, logarithmic above), "
        f"one line a member, on {listed(distributions)}.",
        f"{counted(len(seeds), 'seed')} ({listed(seeds)}); no pairs are involved, and neither the fit nor "
        "the eval split of the probe. Values are as logged in training; the history does not say on how many "
        "documents and tokens, and there are no intervals.",
    ]
    if lost:
        sentences.append(f"{counted(lost, 'value')} of the history that are not finite are left out.")
    return " ".join(sentences)
