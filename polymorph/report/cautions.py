"""What the numbers of a page can and cannot bear, in plain words."""

from collections.abc import Iterator

import polars as pl

from polymorph.claims.site import GAP
from polymorph.report.counting import Pairs, participation
from polymorph.report.look import CONTROL_COLOURS, control_name
from polymorph.report.reading import at_site, dimension, measured, scores
from polymorph.report.wording import counted, listed
from polymorph.studies.rows import sites_in_order


def cautions(last: pl.DataFrame) -> list[str]:
    """Paragraphs about the ladder rows of the last steps: what always holds, and what is lacking here."""
    return [*_always(last), *_lacking(last)]


def _always(last: pl.DataFrame) -> Iterator[str]:
    pairs = Pairs.of(last)
    yield (
        f"n is the number of seeds ({len(pairs.seeds)}), not the number of pairs ({pairs.unordered}) or of "
        "pairs and sites: pairs share seeds, and a range over pairs is no interval for another seed."
    )
    yield (
        "A high R² of the orthogonal map says that one rotation or reflection, fitted on other documents, "
        "carries most of the variance. It does not say that the two sites are isometric: that is rejected where the "
        f"gap to the affine map, which is what a freer linear map adds, lies above {GAP} with its interval. Not "
        "rejected means within that bound on these documents, and no more."
    )
    yield (
        "‖R − I‖ = √(2d − 2 tr R): it is the trace of R and nothing else. A value near √(2d) is what a "
        "uniformly random matrix has, and also what a matrix has that the data do not determine."
    )
    yield _low_rank(last)
    yield (
        "Read every R² between its control and its ceiling: where permuted documents already score high, "
        "position in the document explains the agreement, and no pairing of contents is needed."
    )


def _low_rank(last: pl.DataFrame) -> str:
    d = dimension(last)
    known = [told for site in sites_in_order(last) if (told := _determined(last, site)) is not None]
    here = f" Here, of d = {d} dimensions: {listed(known)}." if known and d is not None else ""
    return (
        "Where the data determine fewer than d dimensions of R (r < d), as where the participation ratio is small, "
        "the rest of R looks random by construction: its trace, determinant and angles are those of the fit, "
        f"not of the members, and are marked undetermined.{here}"
    )


def _determined(last: pl.DataFrame, site: str) -> str | None:
    """r of the site, or where it was not measured the participation ratio."""
    r = measured(at_site(last, site), "determined_dimension")["value"].to_list()
    if r:
        return f"{site}: r = {min(r):.0f}"
    ratio = participation(last, site)
    return None if ratio is None else f"{site}: participation ratio {ratio}"


def _lacking(last: pl.DataFrame) -> Iterator[str]:
    seeds = len(Pairs.of(last).seeds)
    if seeds < 3:
        yield f"With {counted(seeds, 'seed')} nothing can be said about how results vary between seeds."
    if scores(last, "orthogonal", "ceiling").is_empty():
        yield "There is no ceiling: no seed was read at two steps, so what R² can reach at best is not known."
    for control in CONTROL_COLOURS:
        if scores(last, "orthogonal", "control", control).is_empty():
            yield f"The control {control_name(control)} is missing: a floor of R² is not known."
