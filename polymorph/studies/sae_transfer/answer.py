"""Does the SAE of one member explain another?"""

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.sae_panels import Place, median, places_of, used
from polymorph.plotting.sentences import (
    ALIKE,
    across,
    at,
    by_site,
    cell,
    joined,
    middle,
    nothing,
    shortened,
)
from polymorph.plotting.table_rows import scores
from polymorph.studies.registry import table_of
from polymorph.studies.sae_transfer.figure import OWN, through, unpaired
from polymorph.studies.study import Tables

STUDY = "sae_transfer"
R, NAIVE, COVARIANCE = through("orthogonal"), through("identity"), unpaired("covariance_only", "orthogonal")


def answer(rows: pl.DataFrame, tables: Tables) -> Answer:
    """Explained variance through R beside the own SAE, no map, and covariance only; and what the pairing adds."""
    found = R.of(rows)
    if found.is_empty():
        return nothing(
            "No SAE was used on another member than its own, so whether it explains one is not known."
        )
    places = [place for place in places_of(rows) if place.of(found).height]
    pointwise = by_site(scores(table_of(tables, "ladder"), "orthogonal"))
    lines = [_line(rows, place, pointwise.get(place.site)) for place in places]
    columns = (
        "site: EV",
        "own SAE (ceiling)",
        "as it is",
        "through R",
        "covariance only",
        "pairing gain",
        "R² of R",
    )
    text = joined([_ends(rows, places), _explained(rows, places), _undefined(rows, places)])
    return Answer(text, columns, shortened(lines))


def _gain(rows: pl.DataFrame) -> pl.DataFrame:
    return used(rows, "pairing_gain", "centred", map="orthogonal")


def _line(rows: pl.DataFrame, place: Place, pointwise: float | None) -> tuple[str, ...]:
    here = place.of(rows)
    r2 = pl.DataFrame({"value": [] if pointwise is None else [pointwise]}, schema={"value": pl.Float64})
    return (
        str(place),
        *(cell(one.of(here)) for one in (OWN, NAIVE, R, COVARIANCE)),
        cell(_gain(here)),
        cell(r2),
    )


def _ends(rows: pl.DataFrame, places: list[Place]) -> str:
    values = {place: median(place.of(R.of(rows))) or 0.0 for place in places}
    worst, best = min(places, key=lambda place: values[place]), max(places, key=lambda place: values[place])
    text = f"Through R an SAE explains least at {worst}: EV {_beside(worst.of(rows))}"
    return f"{text}." if best == worst else f"{text}. Most at {best}: {_beside(best.of(rows))}."


def _beside(here: pl.DataFrame) -> str:
    parts = [f"{across(R.of(here))}"]
    own, gain = OWN.of(here), _gain(here)
    parts.append(f"its own SAE has {middle(own)} (ceiling)" if own.height else "there is no ceiling")
    parts.append(f"as it is {middle(NAIVE.of(here))}")
    alone = COVARIANCE.of(here)
    parts.append(
        f"covariance only {middle(alone)}" if alone.height else "the control of covariance only is missing"
    )
    if gain.height:
        parts.append(f"pairing gain {cell(gain)}")
    return ", ".join(parts)


def _explained(rows: pl.DataFrame, places: list[Place]) -> str:
    """Where covariance alone does as well as R, or comes within `ALIKE` of it."""
    as_good: list[Place] = []
    near_it: list[Place] = []
    for place in places:
        mapped, alone = median(place.of(R.of(rows))), median(place.of(COVARIANCE.of(rows)))
        if mapped is not None and alone is not None and alone > mapped - ALIKE:
            (as_good if alone >= mapped else near_it).append(place)
    told_of = [f"does at least as well as R {at(as_good, places)}"] if as_good else []
    told_of += [f"comes within {ALIKE:g} of R {at(near_it, places)}"] if near_it else []
    if not told_of:
        return ""
    return (
        f"A map that only matches covariances {' and '.join(told_of)}: explained variance there is no "
        "evidence of common features, and the pairing gain is the number to read."
    )


def _undefined(rows: pl.DataFrame, places: list[Place]) -> str:
    """Where the control and the own SAE are there, and yet no gain."""
    none = [
        place
        for place in places
        if (here := place.of(rows)).height
        and _gain(here).is_empty()
        and COVARIANCE.of(here).height
        and OWN.of(here).height
    ]
    if not none:
        return ""
    return f"There is no pairing gain, because there is hardly anything to gain over covariance, {at(none, places)}."
