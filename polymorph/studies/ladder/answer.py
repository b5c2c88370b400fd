"""How far does each family of maps go?"""

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import (
    ALIKE,
    NO_CEILING,
    across,
    at,
    by_site,
    cell,
    joined,
    middle,
    near,
    nothing,
    of_sites,
    shortened,
)
from polymorph.plotting.table_rows import at_site, measured, scores
from polymorph.studies.study import Tables
from polymorph.verdicts.bounds import GAP

STUDY = "ladder"
MAPS = {"identity": "as it is", "orthogonal": "R", "similarity": "similarity", "affine": "affine"}
PERMUTED = "documents_permuted"


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """What the affine map adds, R² of R at its best and worst site, and where no pairing of contents is needed."""
    found = scores(rows, "orthogonal")
    if found.is_empty():
        return nothing("No two members were compared, so there is no R².")
    sites = sites_in_order(found)
    lines = [_line(at_site(rows, site), site) for site in sites]
    columns = (
        "site: R²",
        *MAPS.values(),
        "R, documents permuted",
        "affine, documents permuted",
        "R, ceiling",
    )
    text = joined([_gap(rows, sites), _ends(rows, found), _explained(rows, sites), _ceiling(rows)])
    return Answer(text, columns, shortened(lines))


def _line(here: pl.DataFrame, site: str) -> tuple[str, ...]:
    own = (cell(scores(here, name)) for name in MAPS)
    controls = (cell(scores(here, name, "control", PERMUTED)) for name in ("orthogonal", "affine"))
    return (site, *own, *controls, cell(scores(here, "orthogonal", "ceiling")))


def _ends(rows: pl.DataFrame, found: pl.DataFrame) -> str:
    values = by_site(found)
    best, worst = max(values, key=lambda site: values[site]), min(values, key=lambda site: values[site])
    text = f"R carries most at {best}, with R² {across(at_site(found, best))}{_beside(at_site(rows, best))}"
    if best == worst:
        return text + "."
    return f"{text}; least at {worst}, with {across(at_site(found, worst))}{_beside(at_site(rows, worst))}."


def _beside(here: pl.DataFrame) -> str:
    parts = [("affine", scores(here, "affine")), ("as it is", scores(here, "identity"))]
    parts.append(("documents paired at random", scores(here, "orthogonal", "control", PERMUTED)))
    parts.append(("affine of those", scores(here, "affine", "control", PERMUTED)))
    parts.append(("ceiling", scores(here, "orthogonal", "ceiling")))
    known = [f"{name} {middle(some)}" for name, some in parts if some.height]
    return f" ({', '.join(known)})" if known else ""


def _gap(rows: pl.DataFrame, sites: list[str]) -> str:
    """Sites at which every directed pair gains with its whole interval, unless an affine map needs no pairing "
    "either."""
    gaps, unpaired = measured(rows, "orthogonality_gap"), _unpaired(rows, "affine")
    asked = [site for site in sites if site not in unpaired]
    if gaps.is_empty():
        return "What an affine map adds was not measured."
    least = {site: at_site(gaps, site)["low"].min() for site in asked}
    gaining = [site for site in asked if (low := least[site]) is not None and float(low) > GAP]  # type: ignore[arg-type]
    if not gaining:
        return (
            f"At no site does an affine map gain more than {GAP} over R (orthogonal) in every pair."
            if asked
            else ""
        )
    start = of_sites(gaining, sites)
    return (
        f"{start[0].upper()}{start[1:]} the members differ by more than a rotation: an affine map gains "
        f"more than {GAP} over R (orthogonal) in every pair, with its whole interval."
    )


def _explained(rows: pl.DataFrame, sites: list[str]) -> str:
    """Where documents paired at random do nearly as well, and where that is not known."""
    told_of, missing = [], []
    for name, how in (("orthogonal", "R"), ("affine", "the affine map")):
        found = _unpaired(rows, name)
        told_of += [f"of {how} {at(found, sites)}"] if found else []
        control = scores(rows, name, "control", PERMUTED)
        missing += [f"for {how}"] if control.is_empty() and scores(rows, name).height else []
    sentences = []
    if told_of:
        sentences.append(
            f"R² {' and '.join(told_of)} is no evidence of shared contents: documents paired at random "
            f"come within {ALIKE:g} of it."
        )
    if missing:
        sentences.append(f"The control of documents paired at random is missing {' and '.join(missing)}.")
    return joined(sentences)


def _ceiling(rows: pl.DataFrame) -> str:
    return "" if scores(rows, "orthogonal", "ceiling").height else NO_CEILING


def _unpaired(rows: pl.DataFrame, name: str) -> list[str]:
    """The sites at which a map fitted on documents paired at random comes near the one fitted on true pairs."""
    return near(by_site(scores(rows, name, "control", PERMUTED)), by_site(scores(rows, name)))
