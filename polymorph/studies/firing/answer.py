"""Does an SAE fire on another member as on its own?"""

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.sae_panels import Place, median, places_of, used
from polymorph.plotting.sentences import (
    ALIKE,
    NO_CEILING,
    across,
    cell,
    joined,
    middle,
    nothing,
    share,
    shortened,
    together,
)
from polymorph.studies.firing.figure import SHARE
from polymorph.studies.firing.rows import LIVE, PERMUTED
from polymorph.studies.study import Tables

STUDY = "firing"


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """Share of live features whose firing agrees through R, as they are, of permuted documents, and of the ceiling."""
    found = _of(rows, "orthogonal")
    if found.is_empty():
        return nothing("No SAE read another member than its own, so whether it fires alike is not known.")
    places = [place for place in places_of(rows) if place.of(found).height]
    lines = [_line(place.of(rows), place) for place in places]
    columns = ("site", "as it is", "through R", "affine", "documents permuted, R", "ceiling")
    ceiling = "" if _of(rows, "orthogonal", "ceiling").height else NO_CEILING
    return Answer(
        joined([_ends(rows, found, places), _explained(rows, places), ceiling]), columns, shortened(lines)
    )


def _of(rows: pl.DataFrame, name: str, role: str = "estimate", control: str | None = None) -> pl.DataFrame:
    """Of the features that fire on both sides."""
    return used(rows, SHARE, LIVE, role=role, map=name, control=control)


def _permuted(rows: pl.DataFrame) -> pl.DataFrame:
    return _of(rows, "orthogonal", "control", PERMUTED)


def _line(here: pl.DataFrame, place: Place) -> tuple[str, ...]:
    own = (_of(here, name) for name in ("identity", "orthogonal", "affine"))
    return (
        str(place),
        *(cell(some, share) for some in (*own, _permuted(here), _of(here, "orthogonal", "ceiling"))),
    )


def _ends(rows: pl.DataFrame, found: pl.DataFrame, places: list[Place]) -> str:
    values = {place: median(place.of(found)) or 0.0 for place in places}
    worst, best = min(places, key=lambda place: values[place]), max(places, key=lambda place: values[place])
    text = f"Fewest at {worst}: {_beside(worst.of(rows))}"
    return f"{text}." if best == worst else f"{text}. Most at {best}: {_beside(best.of(rows))}."


def _beside(here: pl.DataFrame) -> str:
    parts = [f"{across(_of(here, 'orthogonal'), share)} of features fire alike through R (r above 0.5)"]
    parts.append(f"{middle(_of(here, 'identity'), share)} as they are")
    permuted, ceiling = _permuted(here), _of(here, "orthogonal", "ceiling")
    parts.append(
        f"documents paired at random {middle(permuted, share)}"
        if permuted.height
        else "the control is missing"
    )
    parts += [f"ceiling {middle(ceiling, share)}"] if ceiling.height else []
    return ", ".join(parts)


def _explained(rows: pl.DataFrame, places: list[Place]) -> str:
    told_of = []
    for place in places:
        own, permuted = median(_of(place.of(rows), "orthogonal")), median(_permuted(place.of(rows)))
        if own is not None and permuted is not None and permuted > own - ALIKE:
            told_of.append(f"{place} ({share(permuted)})")
    if not told_of:
        return ""
    return (
        f"That is no evidence of common features at {together(told_of)}: documents paired at random reach it."
    )
