"""How well does each member say its labels, by how much of the document it has read?"""

import polars as pl

from polymorph.evidence.function_scores import SUM
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import across, cell, joined, middle, nothing, shortened, together
from polymorph.plotting.wording import counted
from polymorph.studies.study import Tables

STUDY = "loss_by_position"


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """Losses over all tokens beside the constant answer, and from the first tokens to the last."""
    losses = rows.filter(metric="loss", role="estimate").sort("head", "target", "from_position")
    if losses.is_empty():
        return nothing("No member was asked for its labels, so no loss is known.")
    constants = rows.filter(metric="label_entropy")
    heads = sorted(losses["head"].drop_nulls().unique().to_list(), key=lambda head: (head != SUM, head))
    lines = [_line(losses.filter(head=head), constants.filter(head=head), head) for head in heads]
    columns = (
        "head",
        "loss, nats a token",
        "best constant answer",
        "at the first tokens",
        "at the last tokens",
    )
    text = joined(
        [_whole(losses, constants, heads[0]), _course(losses, heads[0]), _learned_nothing(losses, constants)]
    )
    return Answer(text, columns, shortened(lines))


def _name(head: str) -> str:
    return "all heads together" if head == SUM else f"head {head}"


def _bins(losses: pl.DataFrame) -> list[tuple[int, int]]:
    return sorted(losses.select("from_position", "to_position").drop_nulls().unique().iter_rows())


def _in_bin(losses: pl.DataFrame, place: int) -> pl.DataFrame:
    bins = _bins(losses)
    return losses.filter(from_position=bins[place][0]) if bins else losses.clear()


def _over_all(losses: pl.DataFrame) -> pl.DataFrame:
    return losses.filter(pl.col("from_position").is_null())


def _line(losses: pl.DataFrame, constants: pl.DataFrame, head: str) -> tuple[str, ...]:
    cells = (cell(some) for some in (_over_all(losses), constants, _in_bin(losses, 0), _in_bin(losses, -1)))
    return ("all" if head == SUM else head, *cells)


def _whole(losses: pl.DataFrame, constants: pl.DataFrame, head: str) -> str:
    own, alone = _over_all(losses).filter(head=head), constants.filter(head=head)
    beside = (
        "there is no constant answer to compare with"
        if alone.is_empty()
        else f"the best constant answer loses {middle(alone)}"
    )
    return f"Over all tokens the members lose {across(own)} nats a token, {_name(head)}; {beside}."


def _course(losses: pl.DataFrame, head: str) -> str:
    own = losses.filter(head=head)
    bins = _bins(own)
    if len(bins) < 2:
        return "How it changes along a document was not measured."
    (first, second), (start, end) = bins[0], bins[-1]
    before = counted(first, "token") if second == first + 1 else f"{first:,} to {second - 1:,} tokens"
    return (
        f"It goes from {middle(_in_bin(own, 0))} with {before} read to {middle(_in_bin(own, -1))} with "
        f"{start:,} to {end - 1:,} (medians over members)."
    )


def _learned_nothing(losses: pl.DataFrame, constants: pl.DataFrame) -> str:
    """Members and heads whose interval reaches the loss of the constant answer."""
    own = _over_all(losses).join(constants.select("head", constant="value"), on="head")
    poor = own.filter(pl.coalesce("high", "value") >= pl.col("constant")).sort("head", "target")
    each = [f"seed {seed} in {_name(head)}" for seed, head in poor.select("target", "head").iter_rows()]
    return f"No better than that constant: {together(each)}." if each else ""
