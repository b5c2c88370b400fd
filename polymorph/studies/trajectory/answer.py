"""How do members turn while they train?"""

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import (
    across,
    by_site,
    cell,
    degrees,
    joined,
    middle,
    nothing,
    shortened,
)
from polymorph.plotting.spans import first_to_last, late, span
from polymorph.plotting.table_rows import at_site, measured, scores
from polymorph.studies.study import Tables

STUDY = "trajectory"


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """From the first step to the last, and from the last but one that was compared, where it changes most."""
    whole, ending = first_to_last(rows), late(rows)
    found = scores(whole, "orthogonal", "ceiling")
    if found.is_empty():
        return nothing("No member was compared with its own earlier checkpoints: that needs two of them.")
    lines = [
        (site, *_cells(at_site(whole, site)), *_cells(at_site(ending, site)))
        for site in sites_in_order(found)
    ]
    heads = (f"R², {span(part)}: as it is" for part in (whole, ending))
    columns = ("site", *(name for head in heads for name in (head, "through R", "turn")))
    values = by_site(found)
    site = min(values, key=lambda name: values[name])
    again = "" if ending.equals(whole) else f"From {_ending(ending)} {_there(at_site(ending, site))}"
    text = joined(
        [f"From {span(whole)} a member changes most at {site}: {_there(at_site(whole, site))}", again]
    )
    return Answer(text, columns, shortened(lines))


def _ending(rows: pl.DataFrame) -> str:
    """Its own steps, which are other ones for every member where these differ."""
    one = rows.select("source_step", "target_step").n_unique() == 1
    return span(rows) if one else "the last step but one that was compared"


def _parts(here: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """R² as it is, R² through R, and the angle on the determined directions."""
    as_it_is, turned = (scores(here, name, "ceiling") for name in ("identity", "orthogonal"))
    return as_it_is, turned, measured(here, "angle_on_support", "ceiling")


def _cells(here: pl.DataFrame) -> tuple[str, str, str]:
    as_it_is, turned, angle = _parts(here)
    return cell(as_it_is), cell(turned), cell(angle, degrees)


def _there(here: pl.DataFrame) -> str:
    as_it_is, turned, angle = _parts(here)
    turn = (
        f"the determined directions turn by {across(angle, degrees)}"
        if angle.height
        else "no direction of R is determined"
    )
    return f"{turn}, and R² is {across(turned)} through R, {middle(as_it_is)} as it is."
