"""Do the members compute the same function?"""

import polars as pl

from polymorph.evidence.function_scores import SUM
from polymorph.plotting.answer import Answer
from polymorph.plotting.sae_panels import median
from polymorph.plotting.sentences import (
    NO_CEILING,
    across,
    cell,
    joined,
    middle,
    nothing,
    share,
    shortened,
    told,
)
from polymorph.plotting.table_rows import in_reading_order
from polymorph.studies.equivalence.figure import AGREEMENT, BEFORE, LUCK, MEMBERS, RELATIVE, WITHIN
from polymorph.studies.study import Tables

STUDY = "equivalence"


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """Of all heads on the distribution of training, beside the ceiling and untrained members."""
    if MEMBERS.of(rows, "kl").is_empty():
        return nothing("No two members were asked for their answers, so whether they differ is not known.")
    distributions = in_reading_order(rows["distribution"].drop_nulls().to_list())
    heads = sorted(rows["head"].drop_nulls().unique().to_list(), key=lambda head: (head != SUM, head))
    shown = rows.filter(head=heads[0], distribution=distributions[0])
    lines = [
        _line(rows.filter(head=head, distribution=name), name, head)
        for name in distributions
        for head in heads
    ]
    columns = (
        "distribution, head",
        "KL, of a constant answer's",
        "ceiling",
        "untrained",
        "same answer",
        "by chance",
    )
    text = joined(
        [_apart(shown, distributions[0], heads[0], _elsewhere(rows, heads[0])), _beyond(shown), _nats(shown)]
    )
    return Answer(text, columns, shortened(lines))


def _line(rows: pl.DataFrame, distribution: str, head: str) -> tuple[str, ...]:
    shares = (cell(one.of(rows, RELATIVE), share) for one in (MEMBERS, WITHIN, BEFORE))
    agree = (cell(one.of(rows, AGREEMENT), share) for one in (MEMBERS, LUCK))
    return (f"{distribution}, {'all' if head == SUM else head}", *shares, *agree)


def _apart(shown: pl.DataFrame, distribution: str, head: str, elsewhere: str) -> str:
    what = "all heads together" if head == SUM else f"head {head}"
    own, agreement = MEMBERS.of(shown, RELATIVE), MEMBERS.of(shown, AGREEMENT)
    if own.is_empty():
        return f"On {distribution}, {what}, the difference of two members was not measured in shares of a constant's."
    parts = (("ceiling, a member's last two checkpoints", WITHIN), ("untrained members", BEFORE))
    beside = [
        f"{name} {middle(some, share)}" for name, one in parts if (some := one.of(shown, RELATIVE)).height
    ]
    same = f", with the same answer on {middle(agreement, share)} of tokens" if agreement.height else ""
    return (
        f"On {distribution}, {what}, two members differ by {across(own, share)} of what the nearest "
        f"constant answer does{elsewhere}{same}{'; ' + ', '.join(beside) if beside else ''}."
    )


def _beyond(shown: pl.DataFrame) -> str:
    """Pairs that differ by more than one member moved, with their whole interval."""
    excess = MEMBERS.of(shown, "kl_excess")
    if excess.is_empty() or WITHIN.of(shown, RELATIVE).is_empty():
        return NO_CEILING
    more = excess.filter(pl.col("low") > 0).height
    who = "No pair differs" if not more else f"{more:,} of {excess.height:,} pairs differ"
    return (
        f"{who} by more than its members moved between their last two checkpoints, with the whole interval."
    )


def _nats(shown: pl.DataFrame) -> str:
    """Where untrained members are as near in nats as trained ones."""
    own, before = median(MEMBERS.of(shown, "kl")), median(BEFORE.of(shown, "kl"))
    if own is None or before is None:
        return "There are no members from before training to compare with."
    if before <= 2 * own:
        return f"In nats ({told(own)}) that is no evidence: untrained members reach {told(before)}."
    return f"In nats: {told(own)}, untrained {told(before)}."


def _elsewhere(rows: pl.DataFrame, head: str) -> str:
    """The distribution on which members are furthest apart, unless it is the first."""
    names = in_reading_order(rows["distribution"].drop_nulls().to_list())
    found = {name: median(MEMBERS.of(rows.filter(head=head, distribution=name), RELATIVE)) for name in names}
    known = {name: value for name, value in found.items() if value is not None}
    furthest = max(known, key=lambda name: known[name], default=names[0])
    return "" if furthest == names[0] else f" (furthest on {furthest}: {share(known[furthest])})"
