"""Do the SAEs of two members have the same features?"""

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.sae_panels import Place, median, places_of
from polymorph.plotting.sentences import (
    ALIKE,
    across,
    at,
    cell,
    joined,
    middle,
    nothing,
    share,
    shortened,
    together,
)
from polymorph.studies.dictionary_match.figure import MAPPED, RAW, SHARE
from polymorph.studies.dictionary_match.rows import DECODER
from polymorph.studies.study import Tables

STUDY = "dictionary_match"
HOW = {RAW: "as they are", MAPPED: "through R"}


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """Share of features that match through R and as they are, beside the ceiling, chance, and unrelated SAEs."""
    found = (
        _of(rows, "distinct", MAPPED) if _of(rows, "distinct", MAPPED).height else _of(rows, "shared", MAPPED)
    )
    if found.is_empty():
        return nothing(
            "No two SAEs of different members were compared, so whether features are common is not known."
        )
    places = [place for place in places_of(rows) if place.of(found).height]
    lines = [_line(place.of(rows), place) for place in places]
    columns = (
        "site",
        "distinct, as they are",
        "distinct, through R",
        "shared, through R",
        "unrelated, through R",
        "again (ceiling)",
        "chance",
    )
    text = joined([_ends(rows, found, places), _artefact(rows, places), _absent(rows)])
    return Answer(text, columns, shortened(lines))


def _of(rows: pl.DataFrame, arrangement: str, name: str | None = None) -> pl.DataFrame:
    """Shares over decoder directions; of all maps where none is named."""
    own = rows.filter(metric=SHARE, convention=DECODER, arrangement=arrangement)
    return own if name is None else own.filter(map=name)


def _line(here: pl.DataFrame, place: Place) -> tuple[str, ...]:
    cells = (_of(here, "distinct", RAW), _of(here, "distinct", MAPPED), _of(here, "shared", MAPPED))
    others = (_of(here, "unrelated", MAPPED), _of(here, "again"), _of(here, "random"))
    return (str(place), *(cell(some, share) for some in (*cells, *others)))


def _ends(rows: pl.DataFrame, found: pl.DataFrame, places: list[Place]) -> str:
    values = {place: median(place.of(found)) or 0.0 for place in places}
    worst, best = min(places, key=lambda place: values[place]), max(places, key=lambda place: values[place])
    kind = str(found["arrangement"][0])
    seeds = "with seeds of their own" if kind == "distinct" else "with one shared seed"
    text = f"Of SAEs {seeds}, least match at {worst}: {_beside(worst.of(rows), worst.of(found), kind)}"
    return (
        f"{text}."
        if best == worst
        else f"{text}. Most at {best}: {_beside(best.of(rows), best.of(found), kind)}."
    )


def _beside(here: pl.DataFrame, found: pl.DataFrame, kind: str) -> str:
    parts = [f"{across(found, share)} of features have a cosine above 0.5 through R"]
    parts.append(f"{middle(_of(here, kind, RAW), share)} as they are")
    for name, arrangement in (("two SAEs of one member (ceiling)", "again"), ("random directions", "random")):
        own = _of(here, arrangement)
        parts += [f"{name} {middle(own, share)}"] if own.height else []
    return ", ".join(parts)


def _artefact(rows: pl.DataFrame, places: list[Place]) -> str:
    """Where unrelated SAEs match as much: those of one seed in any way, those of their own seeds through R alone."""
    told_of = []
    for kind, name in (("shared", RAW), ("shared", MAPPED), ("distinct", MAPPED)):
        found = [place for place in places if _matched_by_noise(place.of(rows), kind, name)]
        own = median(pl.concat([_of(place.of(rows), kind, name) for place in found])) if found else None
        noise = (
            median(pl.concat([_of(place.of(rows), "unrelated", name) for place in found])) if found else None
        )
        if own is not None and noise is not None:
            told_of.append(f"{kind} {HOW[name]} {at(found, places)} ({share(own)}, unrelated {share(noise)})")
    if not told_of:
        return ""
    return f"That is no evidence of common features where SAEs of unrelated noise match as well: {together(told_of)}."


def _absent(rows: pl.DataFrame) -> str:
    """What is not known without the SAEs that a control or the ceiling needs."""
    lacking = []
    if _of(rows, "again").is_empty():
        lacking.append("no two SAEs of one member, hence no ceiling")
    if _of(rows, "unrelated").is_empty():
        lacking.append(
            "no SAEs of unrelated noise, so how much of this comes from R and from the way SAEs are "
            "trained is not known"
        )
    if _of(rows, "distinct").is_empty():
        lacking.append("no SAEs with seeds of their own, so the initialisation may explain all of it")
    return f"Missing: {'; '.join(lacking)}." if lacking else ""


def _matched_by_noise(here: pl.DataFrame, kind: str, name: str) -> bool:
    """Whether SAEs of noise come within `ALIKE` of a share that is above chance."""
    own, noise = median(_of(here, kind, name)), median(_of(here, "unrelated", name))
    chance = median(_of(here, "random")) or 0.0
    return own is not None and noise is not None and own > chance and noise > own - ALIKE
