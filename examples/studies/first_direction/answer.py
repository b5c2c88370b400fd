"""What the page says of it."""

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import across, cell, nothing
from polymorph.plotting.table_rows import at_site, measured
from polymorph.studies.study import Tables


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """The median over pairs, and that of the control; a line a site."""
    found, permuted = (measured(rows, "cosine", role) for role in ("estimate", "control"))
    if found.is_empty():
        return nothing("No two members were compared, so their first directions were not.")
    lines = [
        (site, cell(at_site(found, site)), cell(at_site(permuted, site))) for site in found["site"].unique()
    ]
    text = f"|cos| is {across(found)}, and {across(permuted)} with permuted tokens."
    return Answer(text, ("site", "|cos|", "permuted tokens"), tuple(sorted(lines)))
