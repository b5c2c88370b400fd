"""What the numbers of a page can and cannot bear, in plain words."""

from collections.abc import Iterator, Mapping

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import Pairs, participation
from polymorph.plotting.sae_panels import median, places_of, used
from polymorph.plotting.sentences import ALIKE
from polymorph.plotting.style import CONTROL_COLOURS, control_name
from polymorph.plotting.table_rows import at_site, completed, dimension, measured, scores
from polymorph.plotting.wording import counted, listed, number
from polymorph.studies.dictionary_match.rows import DECODER
from polymorph.studies.massive_activations.rows import ALL, RANDOM, WITHOUT
from polymorph.studies.registry import schema_of
from polymorph.verdicts.bounds import GAP


def cautions(last: pl.DataFrame, tables: Mapping[str, pl.DataFrame] | None = None) -> list[str]:
    """Paragraphs about the ladder rows of the last steps: what always holds, and what is lacking here.

    `tables` are those of the other studies, by name; of those about SAEs, what their controls explain too.
    """
    own = {name: completed(rows, schema_of(name)) for name, rows in (tables or {}).items()}
    return [*_always(last), *_lacking(last), *_decided(own), *_unpaired(own), *_initialised(own)]


def _decided(tables: Mapping[str, pl.DataFrame]) -> Iterator[str]:
    """Where R² is another one without massive axes, and not without as many others."""
    rows = tables.get("massive_activations")
    if rows is None:
        return
    told = []
    for site in sites_in_order(rows):
        for name in ("identity", "orthogonal"):
            here = at_site(rows, site).filter(metric="r2", map=name)
            found = [median(here.filter(pl.col("axes") == axes)) for axes in (ALL, WITHOUT, RANDOM)]
            whole, without, others = found
            if whole is None or without is None or others is None:
                continue
            if min(abs(whole - without), abs(others - without)) > ALIKE:
                told.append(f"{site}, {name}: {number(whole, 2)}, without {number(without, 2)}")
    if told:
        yield (
            "Here a few axes of the residual stream decide R²: median over pairs with all axes and without the massive "
            f"ones: {'; '.join(told)}. Other studies at these sites are of the whole stream, and of those axes first."
        )


def _unpaired(tables: Mapping[str, pl.DataFrame]) -> Iterator[str]:
    """Where a map that matches covariances makes an SAE explain nearly as much as R does."""
    rows = tables.get("sae_transfer")
    if rows is None:
        return
    about = ("explained_variance", "centred")
    paired = used(rows, *about, map="orthogonal")
    unpaired = used(rows, *about, role="control", map="orthogonal", control="covariance_only")
    told = []
    for place in places_of(rows):
        mapped, alone = (median(place.of(some)) for some in (paired, unpaired))
        if mapped is not None and alone is not None and _explains(alone, mapped):
            told.append(f"{place}: {number(mapped, 2)} through R, {number(alone, 2)} with covariance only")
    if told:
        yield (
            "Here most of the SAE's transfer needs no pairing, because a map that only matches covariances gives "
            f"nearly the same explained variance (medians over pairs): {'; '.join(told)}."
        )


def _initialised(tables: Mapping[str, pl.DataFrame]) -> Iterator[str]:
    """Where SAEs that share an initialisation match as much on unrelated data."""
    rows = tables.get("dictionary_match")
    if rows is None:
        return
    told = []
    for place in places_of(rows):
        chance = used(place.of(rows), "match_share", DECODER, role="null")["high"].max()
        for name, how in (("identity", "as they are"), ("orthogonal", "through R")):
            shares = used(place.of(rows), "match_share", DECODER, map=name)
            controls = used(place.of(rows), "match_share", DECODER, role="control", map=name)
            shared, unrelated = (
                median(some.filter(arrangement=arrangement))
                for some, arrangement in ((shares, "shared"), (controls, "unrelated"))
            )
            if shared is None or unrelated is None or (chance is not None and shared <= chance):  # type: ignore[operator]
                continue
            if _explains(unrelated, shared):
                told.append(f"{place} {how}: {number(shared, 2)}, unrelated {number(unrelated, 2)}")
    if told:
        yield (
            "Features that match between SAEs with one initialisation seed are no evidence of common features where "
            "SAEs of noise match alike, which has the members' covariances and nothing else, median share with a "
            f"cosine above 0.5: {'; '.join(told)}."
        )


def _explains(control: float, value: float) -> bool:
    """Whether a control comes within `ALIKE` of a value, and has most of it."""
    return value - control <= ALIKE and control > value / 2 > ALIKE / 2


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
