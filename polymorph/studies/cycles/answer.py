"""Do the maps agree round a cycle?"""

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import (
    ALIKE,
    across,
    at,
    by_site,
    cell,
    joined,
    middle,
    near,
    nothing,
    shortened,
)
from polymorph.plotting.table_rows import at_site, measured
from polymorph.plotting.wording import counted
from polymorph.studies.study import Tables

STUDY = "cycles"
COHERENCE = "cycle_coherence"
FRAMES = ("pairwise_r2", "synchronised_r2", "consensus_r2")


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """Coherence at its worst and best site beside permuted documents, and what one frame costs."""
    found, permuted = measured(rows, COHERENCE), measured(rows, COHERENCE, "control")
    if found.is_empty():
        return nothing(
            "No cycle was closed: that needs three members, all their pairs, and determined directions."
        )
    sites = list(by_site(measured(rows, FRAMES[0])) or by_site(found))
    lines = [_line(at_site(rows, site), site) for site in sites]
    columns = (
        "site",
        "coherence",
        "documents permuted",
        "R² pairwise",
        "R² one frame",
        "R² consensus of others",
    )
    text = joined([_ends(found, permuted), _cost(rows), _explained(found, permuted)])
    return Answer(text, columns, shortened(lines))


def _line(here: pl.DataFrame, site: str) -> tuple[str, ...]:
    coherences = (cell(measured(here, COHERENCE, role)) for role in ("estimate", "control"))
    return (site, *coherences, *(cell(measured(here, metric)) for metric in FRAMES))


def _ends(found: pl.DataFrame, permuted: pl.DataFrame) -> str:
    values = by_site(found)
    best, worst = max(values, key=lambda site: values[site]), min(values, key=lambda site: values[site])
    n = counted(found.select("source", "target", "third").n_unique(), "triangle")
    text = f"Coherence (1 where maps undo each other round a cycle; {n}) is {_one(found, permuted, worst)}"
    return (
        f"{text}." if best == worst else f"{text} at the worst and {_one(found, permuted, best)} at the best."
    )


def _one(found: pl.DataFrame, permuted: pl.DataFrame, site: str) -> str:
    control = at_site(permuted, site)
    beside = f"permuted documents {middle(control)}" if control.height else "no control of permuted documents"
    return f"{cell(at_site(found, site))} ({site}; {beside})"


def _cost(rows: pl.DataFrame) -> str:
    """At the site where one frame has the lowest R²."""
    values = by_site(measured(rows, "synchronised_r2"))
    if not values:
        return "What one frame costs was not measured."
    site = min(values, key=lambda name: values[name])
    pairwise, frame, consensus = (measured(at_site(rows, site), metric) for metric in FRAMES)
    return (
        f"One frame for all has R² {across(frame)} at its worst, {site}, where a map for each pair has "
        f"{middle(pairwise)}, and the mean of the others predicts a member with {middle(consensus)}."
    )


def _explained(found: pl.DataFrame, permuted: pl.DataFrame) -> str:
    sites = near(by_site(permuted), by_site(found))
    if not sites:
        return ""
    return (
        f"That is no evidence of a common frame {at(sites)}: permuted documents come within {ALIKE:g} of it."
    )
