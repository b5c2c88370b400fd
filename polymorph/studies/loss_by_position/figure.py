"""How well does each member say its labels? Loss by the number of tokens read before, a line a member."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from polymorph.evidence.function_scores import SUM
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import INK, NAMED_SEEDS, grid, seed_colours, step_axis, style
from polymorph.plotting.wording import between, counted, listed, number, plain

NAME, TITLE = "loss_by_position", "Loss by the number of tokens read"
MOST_COLUMNS = 3
DASHED = (0, (4, 3))


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """From the rows alone, which count their own documents and tokens."""
    losses = _losses(rows)
    if losses.filter(pl.col("from_position").is_not_null()).is_empty():
        return Missing(NAME, TITLE, "No member was asked for its labels.")
    return Plate(NAME, TITLE, _caption(rows, losses), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A panel a head; the sum over heads is left to the table."""
    losses, entropies = _losses(rows), _entropies(rows)
    heads, colours = _heads(losses), seed_colours(losses["target"].unique().to_list())
    columns = min(len(heads), MOST_COLUMNS)
    high = -(-len(heads) // columns)
    with style():
        figure, cells = grid(high, columns, 2.3 * high + 1.3, sharey=False)
        panels = [axes for row in cells for axes in row]
        for axes in panels[len(heads) :]:
            axes.remove()
        for head, axes in zip(heads, panels, strict=False):
            of_head = pl.col("head") == head
            _lines(axes, losses.filter(of_head, pl.col("from_position").is_not_null()), colours)
            for value in entropies.filter(of_head)["value"]:
                axes.axhline(value, color=INK, linewidth=1.0, linestyle=DASHED, zorder=1.5)
            axes.set_ylim(bottom=0)
            axes.set_title(plain(head))
            axes.tick_params(labelbottom=True)
        step_axis(panels[0], int(losses["to_position"].drop_nulls().max()))  # type: ignore[arg-type]
        figure.supxlabel("tokens of the document read before", fontsize=10)
        figure.supylabel("loss, nats a token", fontsize=10)
        figure.legend(handles=_handles(colours), loc="outside upper left", ncols=5)
        return settle(figure)


def _losses(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(metric="loss", role="estimate").sort("head", "target", "from_position")


def _entropies(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(metric="label_entropy").sort("head")


def _heads(losses: pl.DataFrame) -> list[str]:
    return [head for head in sorted(losses["head"].drop_nulls().unique().to_list()) if head != SUM]


def _lines(axes: Axes, losses: pl.DataFrame, colours: dict[int, str]) -> None:
    """Every bin at the middle of its positions, with its interval as a band."""
    middle = (pl.col("from_position") + pl.col("to_position") - 1) / 2
    for seed, colour in colours.items():
        own = losses.filter(pl.col("target") == seed).with_columns(at=middle)
        axes.plot(own["at"], own["value"], color=colour, marker=".", ms=4, linewidth=1.4)
        known = own.drop_nulls(["low", "high"])
        axes.fill_between(known["at"], known["low"], known["high"], color=colour, alpha=0.18, linewidth=0)


def _handles(colours: dict[int, str]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=colour, marker=".", label=f"seed {seed}") for seed, colour in colours.items()
    ]
    control = Line2D(
        [], [], color=INK, linewidth=1.0, linestyle=DASHED, label="best constant answer (control)"
    )
    return [*(lines if len(lines) <= NAMED_SEEDS else []), control]


def _caption(rows: pl.DataFrame, losses: pl.DataFrame) -> str:
    seeds = sorted(losses["target"].unique().to_list())
    whole = losses.filter(pl.col("from_position").is_null())
    told = []
    for head in _heads(losses):
        over = whole.filter(pl.col("head") == head)["value"]
        alone = _entropies(rows).filter(pl.col("head") == head)["value"]
        ends = " to ".join(dict.fromkeys(number(float(end), 2) for end in (over.min(), over.max())))  # type: ignore[arg-type]
        told.append(f"{head} {ends}" + ("" if alone.is_empty() else f" (constant {number(alone[0], 2)})"))
    documents, tokens = (
        between(whole[f"n_{noun}s"].unique().to_list(), noun) for noun in ("document", "token")
    )
    return " ".join(
        [
            "Cross-entropy of every member's answers, by how many tokens of the document it has read before: each "
            "dot is the mean over the tokens of a bin, at the bin's middle (0 to 1 linear, logarithmic above); one "
            "line a member, one panel a head.",
            "Dashed, the entropy of the labels on these tokens, which is the loss of the best answer that is always "
            "the same: a member that is no better there has learned no more than how frequent the labels are.",
            f"Over all tokens, least to greatest of the members: {'; '.join(told)} nats.",
            f"Data: {counted(len(seeds), 'seed')} ({listed(seeds)}), no pairs; eval split: {documents}, {tokens}.",
            "Bands are 95 % intervals by a delete-one-block jackknife over documents: they hold no uncertainty between "
            "seeds. Bins far into a document hold long documents alone, so a line compares documents too.",
        ]
    )
