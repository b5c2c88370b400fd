"""Which part of R do the data determine?"""

import polars as pl

from polymorph.evidence.rows import ON_SUPPORT
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import (
    across,
    by_site,
    cell,
    joined,
    middle,
    nothing,
    of_sites,
    shortened,
)
from polymorph.plotting.table_rows import at_site, measured
from polymorph.plotting.wording import number
from polymorph.studies.study import Tables

STUDY = "support"


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """r of d at every site, of a member with itself, and R² on what is determined."""
    r, d = measured(rows, "determined_dimension"), measured(rows, "dimension")
    if r.is_empty() or d.is_empty():
        return nothing("No two members were compared, so what of R is determined is not known.")
    sites = list(by_site(r))
    lines = [_line(at_site(rows, site), site) for site in sites]
    columns = (
        "site",
        "r of a pair",
        "ceiling",
        "d",
        "pinned",
        "privileged axes",
        "R² of R there",
        "affine there",
    )
    text = joined([_extent(r, d, rows), _on_support(rows)])
    return Answer(text, columns, shortened(lines))


def count(value: float) -> str:
    """A number of dimensions."""
    return number(value, 0)


def _line(here: pl.DataFrame, site: str) -> tuple[str, ...]:
    r, d = measured(here, "determined_dimension"), measured(here, "dimension")
    ceiling = measured(here, "determined_dimension", "ceiling")
    others = (cell(measured(here, metric), count) for metric in ("pinned_dimension", "privileged_axes"))
    scored = (cell(_scored(here, metric)) for metric in ("r2_orthogonal", "r2_affine"))
    return (site, cell(r, count), cell(ceiling, count), cell(d, count), *others, *scored)


def _scored(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    return measured(rows, metric).filter(convention=ON_SUPPORT)


def _least(rows: pl.DataFrame) -> dict[str, float]:
    return {site: float(at_site(rows, site)["value"].min()) for site in by_site(rows)}  # type: ignore[arg-type]


def _extent(r: pl.DataFrame, d: pl.DataFrame, rows: pl.DataFrame) -> str:
    least, dimensions = _least(r), by_site(d)
    whole = [site for site in least if least[site] >= dimensions[site]]
    low, high = min(least, key=lambda site: least[site]), max(least, key=lambda site: least[site])
    start = f"The data determine R whole {of_sites(whole, list(least))}"
    if len(whole) == len(least):
        return f"{start} (r = d = {count(dimensions[low])} in every pair)."
    ceilings = measured(rows, "determined_dimension", "ceiling")
    own = [f"{_extreme(low, least, dimensions)}{_itself(ceilings, low)}"]
    if high != low:
        own.append(f"{_extreme(high, least, dimensions)}{_itself(ceilings, high)}")
    return f"{start}: of the least determined pair, {' and '.join(own)}."


def _extreme(site: str, least: dict[str, float], dimensions: dict[str, float]) -> str:
    return f"{count(least[site])} of {count(dimensions[site])} dimensions at {site}"


def _itself(ceilings: pl.DataFrame, site: str) -> str:
    own = at_site(ceilings, site)
    return f" (a member with itself: {middle(own, count)})" if own.height else " (no ceiling)"


def _on_support(rows: pl.DataFrame) -> str:
    """Where it is worst; there is nothing to tell where R is determined whole, or not at all."""
    values = by_site(_scored(rows, "r2_orthogonal"))
    if not values:
        return ""
    worst = min(values, key=lambda site: values[site])
    here = at_site(rows, worst)
    return (
        f"On the determined directions R is worst at {worst}: R² "
        f"{across(_scored(here, 'r2_orthogonal'))}, where an affine map has "
        f"{middle(_scored(here, 'r2_affine'))}."
    )
