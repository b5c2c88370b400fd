"""Does the SAE of one checkpoint explain another?"""

import polars as pl

from polymorph.report.answers.answer import Answer
from polymorph.report.answers.saying import across, at, cell, joined, middle, nothing, shortened
from polymorph.report.answers.tables import Tables
from polymorph.report.cautions import ALIKE
from polymorph.report.dictionaries import Place, median, places_of
from polymorph.report.figures.sae_transfer import OWN, through, unpaired

STUDY = "checkpoint_transfer"
R, NAIVE, COVARIANCE = through("orthogonal"), through("identity"), unpaired("covariance_only", "orthogonal")
BEARS = (
    "It can bear how much of an SAE survives further training of its own member, with and without a "
    "rotation. No two members are compared.",
    "R matches covariances too, which alone makes an SAE explain much: only what it explains beyond the "
    "covariance-only control comes from which token goes with which.",
    "How far checkpoints are apart was chosen when they were saved; ranges are over members.",
)
Steps = tuple[int, int]


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """The SAE of the earliest checkpoint on the latest, as it is and through R, beside the latest one's own."""
    found = R.of(rows).filter(pl.col("source_step") < pl.col("target_step"))
    if found.is_empty():
        return nothing(
            "No SAE was used on a later checkpoint of its member, so whether it lasts is not known.", BEARS
        )
    steps = _furthest(found)
    places = [place for place in places_of(rows) if place.of(_between(found, steps)).height]
    lines = [_line(place.of(rows), place, steps) for place in places]
    columns = (
        f"site: EV, step {steps[0]:,} to {steps[1]:,}",
        "own SAE (ceiling)",
        "as it is",
        "through R",
        "covariance only",
    )
    text = joined([_ends(rows, places, steps), _explained(rows, places, steps)])
    return Answer(text, columns, shortened(lines), BEARS)


def _furthest(found: pl.DataFrame) -> Steps:
    """The latest step that any SAE is used on, and of those used there the earliest."""
    pairs = list(found.select("source_step", "target_step").unique().iter_rows())
    last = max(late for _, late in pairs)
    return min(early for early, late in pairs if late == last), last


def _between(rows: pl.DataFrame, steps: Steps) -> pl.DataFrame:
    return rows.filter(source_step=steps[0], target_step=steps[1])


def _own(rows: pl.DataFrame, steps: Steps) -> pl.DataFrame:
    """SAEs of the later step on the activations they were trained on."""
    return OWN.of(rows).filter(source_step=steps[1], target_step=steps[1])


def _line(here: pl.DataFrame, place: Place, steps: Steps) -> tuple[str, ...]:
    series = (_between(one.of(here), steps) for one in (NAIVE, R, COVARIANCE))
    return (str(place), cell(_own(here, steps)), *(cell(some) for some in series))


def _ends(rows: pl.DataFrame, places: list[Place], steps: Steps) -> str:
    values = {place: median(_between(R.of(place.of(rows)), steps)) or 0.0 for place in places}
    worst, best = min(places, key=lambda place: values[place]), max(places, key=lambda place: values[place])
    start = f"The SAE of step {steps[0]:,} explains least of step {steps[1]:,} at {worst}"
    text = f"{start}: EV {_beside(worst.of(rows), steps)}"
    return f"{text}." if best == worst else f"{text}. Most at {best}: {_beside(best.of(rows), steps)}."


def _beside(here: pl.DataFrame, steps: Steps) -> str:
    mapped, raw, alone = (_between(one.of(here), steps) for one in (R, NAIVE, COVARIANCE))
    own = _own(here, steps)
    parts = [f"{across(mapped)} through R", f"{middle(raw)} as it is"]
    parts.append(
        f"covariance only {middle(alone)}" if alone.height else "the control of covariance only is missing"
    )
    parts.append(
        f"the SAE of that step itself {middle(own)} (ceiling)" if own.height else "there is no ceiling"
    )
    return ", ".join(parts)


def _explained(rows: pl.DataFrame, places: list[Place], steps: Steps) -> str:
    told_of = []
    for place in places:
        mapped, alone = (median(_between(one.of(place.of(rows)), steps)) for one in (R, COVARIANCE))
        if mapped is not None and alone is not None and alone > mapped - ALIKE:
            told_of.append(place)
    if not told_of:
        return ""
    return (
        f"A map that only matches covariances comes within {ALIKE:g} of R {at(told_of, places)}: what R "
        "explains there is no evidence that the same features are left."
    )
