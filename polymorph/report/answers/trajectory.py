"""How do members turn while they train?"""

import polars as pl

from polymorph.report.answers.answer import Answer
from polymorph.report.answers.saying import across, by_site, cell, degrees, joined, middle, nothing, shortened
from polymorph.report.answers.tables import Tables
from polymorph.report.reading import at_site, measured, scores
from polymorph.studies.rows import sites_in_order

STUDY = "trajectory"
BEARS = (
    "It can bear how a member differs from its own earlier self. No two members are compared: it is the "
    "ceiling of what any map between members can reach, and shows what training changes by itself.",
    "The angle is the mean turn of the determined directions alone: 0° where they stay, 90° where "
    "nothing of them is kept, which is also what unrelated streams have.",
    "How far two checkpoints differ depends on how far apart they were saved. Ranges are over members.",
)
Steps = tuple[int, int]


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """From the first step to the last, and from the last but one that was compared, at the site that changes most."""
    found = scores(rows, "orthogonal", "ceiling")
    if found.is_empty():
        return nothing(
            "No member was compared with its own earlier checkpoints: that needs two of them.", BEARS
        )
    whole, late = _ends(found)
    sites = sites_in_order(found)
    lines = [_line(at_site(rows, site), site, whole, late) for site in sites]
    columns = (
        "site",
        f"R², {_named(whole)}: as it is",
        "through R",
        "turn",
        f"R², {_named(late)}: as it is",
        "through R",
        "turn",
    )
    values = by_site(_between(scores(rows, "orthogonal", "ceiling"), whole))
    least = min(values, key=lambda site: values[site])
    here = at_site(rows, least)
    text = joined([_sentence(here, least, whole), "" if late == whole else _late(at_site(rows, least), late)])
    return Answer(text, columns, shortened(lines), BEARS)


def _ends(found: pl.DataFrame) -> tuple[Steps, Steps]:
    """(first, last) and (last but one, last) of the steps between which members were compared."""
    pairs = sorted(found.select("source_step", "target_step").drop_nulls().unique().iter_rows())
    last = max(late for _, late in pairs)
    ending = [(early, late) for early, late in pairs if late == last]
    return ending[0], ending[-1]


def _named(steps: Steps) -> str:
    return f"step {steps[0]:,} to {steps[1]:,}"


def _between(rows: pl.DataFrame, steps: Steps) -> pl.DataFrame:
    return rows.filter(source_step=steps[0], target_step=steps[1])


def _parts(here: pl.DataFrame, steps: Steps) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """R² as it is, R² through R, and the angle on the determined directions."""
    scored = (_between(scores(here, name, "ceiling"), steps) for name in ("identity", "orthogonal"))
    return *scored, _between(measured(here, "angle_on_support", "ceiling"), steps)  # type: ignore[return-value]


def _line(here: pl.DataFrame, site: str, *ends: Steps) -> tuple[str, ...]:
    cells: list[str] = []
    for steps in ends:
        as_it_is, turned, angle = _parts(here, steps)
        cells += [cell(as_it_is), cell(turned), cell(angle, degrees)]
    return (site, *cells)


def _sentence(here: pl.DataFrame, site: str, steps: Steps) -> str:
    as_it_is, turned, angle = _parts(here, steps)
    turn = (
        f"the determined directions turn by {across(angle, degrees)}"
        if angle.height
        else "no direction is determined"
    )
    return (
        f"From {_named(steps)} a member changes most at {site}: {turn}, R carries R² {across(turned)} of "
        f"its later self, and as it is {middle(as_it_is)}."
    )


def _late(here: pl.DataFrame, steps: Steps) -> str:
    as_it_is, turned, angle = _parts(here, steps)
    turn = f" after a turn of {middle(angle, degrees)}" if angle.height else ""
    return (
        f"From {_named(steps)} R² there is {across(turned)} through R{turn}, and {middle(as_it_is)} as it is."
    )
