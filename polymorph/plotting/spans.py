"""Which steps of its own training a member is compared over: members may have stopped at different ones."""

import polars as pl


def first_to_last(rows: pl.DataFrame) -> pl.DataFrame:
    """Of every member the rows from its earliest step to its latest, of those compared with the latest."""
    last = _to_last(rows)
    return last.filter(pl.col("source_step") == pl.col("source_step").min().over("source"))


def late(rows: pl.DataFrame) -> pl.DataFrame:
    """Of every member the rows from the last step before its latest, of those compared with it."""
    last = _to_last(rows)
    return last.filter(pl.col("source_step") == pl.col("source_step").max().over("source"))


def span(rows: pl.DataFrame) -> str:
    """`step 50 to 100`, or what members have in common where theirs differ."""
    found = set(rows.select("source_step", "target_step").iter_rows())
    if len(found) != 1:
        return "each member's own first step to its last"
    ((early, last),) = found
    return f"step {early:,} to {last:,}"


def _to_last(rows: pl.DataFrame) -> pl.DataFrame:
    forward = rows.filter(pl.col("source_step") < pl.col("target_step"))
    return forward.filter(pl.col("target_step") == pl.col("target_step").max().over("source"))
