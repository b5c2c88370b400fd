"""Is an isometry possible?"""

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import (
    across,
    at,
    by_site,
    cell,
    degrees,
    joined,
    middle,
    nothing,
    share,
    shortened,
)
from polymorph.plotting.table_rows import at_site, measured
from polymorph.studies.study import Tables

STUDY = "isometry"
PARTS = ("spectral_distance", "relational_distance")


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """What the spectra keep apart at most and at least, and the angle that the best R leaves."""
    spectral = measured(rows, PARTS[0])
    if spectral.is_empty():
        return nothing("No two members were compared, so no distance between them is known.")
    values = by_site(spectral)
    lines = [_line(at_site(rows, site), site) for site in values]
    columns = ("site", "spectral part", "relational part", "Procrustes angle", "documents permuted", "CKA")
    text = joined([_spectra(rows, values), _angles(rows), _reached(rows)])
    return Answer(text, columns, shortened(lines))


def _line(here: pl.DataFrame, site: str) -> tuple[str, ...]:
    parts = (cell(measured(here, part), share) for part in PARTS)
    angles = (cell(measured(here, "procrustes_angle", role), degrees) for role in ("estimate", "control"))
    return (site, *parts, *angles, cell(measured(here, "cka")))


def _spectra(rows: pl.DataFrame, values: dict[str, float]) -> str:
    most, least = max(values, key=lambda site: values[site]), min(values, key=lambda site: values[site])
    spectral, relational = (measured(at_site(rows, most), part) for part in PARTS)
    text = (
        f"The spectra alone keep {across(spectral, share)} of the target's variance apart at {most}, "
        "which no rotation can remove; tokens that do not correspond keep another "
        f"{middle(relational, share)}"
    )
    if most == least:
        return text + "."
    spectral, relational = (measured(at_site(rows, least), part) for part in PARTS)
    return f"{text}. At {least}, the least, it is {middle(spectral, share)} and {middle(relational, share)}."


def _angles(rows: pl.DataFrame) -> str:
    own, permuted = (measured(rows, "procrustes_angle", role) for role in ("estimate", "control"))
    if own.is_empty():
        return "The Procrustes angle was not measured."
    values = by_site(own)
    widest = max(values, key=lambda site: values[site])
    control = at_site(permuted, widest)
    beside = (
        f"where documents paired at random leave {middle(control, degrees)}"
        if control.height
        else "and there is no control of documents paired at random"
    )
    apart = across(at_site(own, widest), degrees)
    return f"The best R leaves the members at most {apart} apart, at {widest}, {beside}."


def _reached(rows: pl.DataFrame) -> str:
    """Where R of documents paired at random leaves no larger an angle than the worst pair has."""
    own, permuted = (measured(rows, "procrustes_angle", role) for role in ("estimate", "control"))
    sites = list(by_site(own))
    reached = [
        site
        for site in sites
        if (control := at_site(permuted, site)).height
        and float(control["value"].min()) <= float(at_site(own, site)["value"].max())  # type: ignore[arg-type]
    ]
    if not reached:
        return ""
    return f"Documents paired at random do as well {at(reached, sites)}: that is no evidence of a relation."
