"""Does the SAE of one checkpoint explain another?"""

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.sae_panels import Place, median, places_of
from polymorph.plotting.sentences import ALIKE, across, at, cell, joined, middle, nothing, shortened
from polymorph.plotting.spans import first_to_last, span
from polymorph.studies.sae_transfer.figure import OWN, through, unpaired
from polymorph.studies.study import Tables

STUDY = "checkpoint_transfer"
R, NAIVE, COVARIANCE = through("orthogonal"), through("identity"), unpaired("covariance_only", "orthogonal")


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """The SAE of the earliest checkpoint on the latest, as it is and through R, beside the latest one's own."""
    used = first_to_last(rows)
    if R.of(used).is_empty():
        return nothing(
            "No SAE was used on a later checkpoint of its member, so whether it lasts is not known."
        )
    own = OWN.of(rows).join(
        used, left_on=["source", "target_step"], right_on=["source", "target_step"], how="semi"
    )
    places = [place for place in places_of(used) if place.of(R.of(used)).height]
    lines = [_line(place.of(used), place.of(own), place) for place in places]
    columns = (f"site: EV, {span(used)}", "own SAE (ceiling)", "as it is", "through R", "covariance only")
    text = joined([_ends(used, own, places), _explained(used, places)])
    return Answer(text, columns, shortened(lines))


def _line(here: pl.DataFrame, own: pl.DataFrame, place: Place) -> tuple[str, ...]:
    return (str(place), cell(own), *(cell(one.of(here)) for one in (NAIVE, R, COVARIANCE)))


def _ends(used: pl.DataFrame, own: pl.DataFrame, places: list[Place]) -> str:
    values = {place: median(R.of(place.of(used))) or 0.0 for place in places}
    worst, best = min(places, key=lambda place: values[place]), max(places, key=lambda place: values[place])
    text = (
        f"From {span(used)} the earlier SAE explains least of the later stream at {worst}: EV "
        f"{_beside(worst.of(used), worst.of(own))}"
    )
    return f"{text}." if best == worst else f"{text}. Most at {best}: {_beside(best.of(used), best.of(own))}."


def _beside(here: pl.DataFrame, own: pl.DataFrame) -> str:
    alone = COVARIANCE.of(here)
    parts = [f"{across(R.of(here))} through R", f"{middle(NAIVE.of(here))} as it is"]
    parts.append(
        f"covariance only {middle(alone)}" if alone.height else "the control of covariance only is missing"
    )
    parts.append(f"the later SAE itself {middle(own)} (ceiling)" if own.height else "there is no ceiling")
    return ", ".join(parts)


def _explained(used: pl.DataFrame, places: list[Place]) -> str:
    told_of = []
    for place in places:
        mapped, alone = (median(one.of(place.of(used))) for one in (R, COVARIANCE))
        if mapped is not None and alone is not None and alone > mapped - ALIKE:
            told_of.append(place)
    if not told_of:
        return ""
    return (
        f"A map that only matches covariances comes within {ALIKE:g} of R {at(told_of, places)}: what R "
        "explains there is no evidence that the same features are left."
    )
