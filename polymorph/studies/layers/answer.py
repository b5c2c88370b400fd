"""Is the right layer the best one?"""

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.answer import Answer
from polymorph.plotting.sae_panels import median
from polymorph.plotting.sentences import (
    at,
    by_site,
    cell,
    joined,
    middle,
    nothing,
    of_sites,
    shortened,
    told,
)
from polymorph.plotting.table_rows import at_site
from polymorph.studies.study import Tables

STUDY = "layers"
MAPS = {"orthogonal": "R", "affine": "an affine map"}


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """For R and for an affine map, how many sites are predicted best from the same site."""
    scored = rows.filter(metric="r2")
    sites = sites_in_order(scored)
    if scored.is_empty():
        return nothing("No site was compared with another one of another member.")
    lines = [(site, *(part for name in MAPS for part in _cells(scored, name, site))) for site in sites]
    columns = (
        "site",
        *(part for name in MAPS.values() for part in (f"{name}, same site", f"{name}, best other")),
    )
    return Answer(joined(_verdict(scored, name, sites) for name in MAPS), columns, shortened(lines))


def _same(scored: pl.DataFrame, name: str, site: str) -> pl.DataFrame:
    return at_site(scored, site).filter(map=name, source_site=site)


def _best_other(scored: pl.DataFrame, name: str, site: str) -> tuple[str, float] | None:
    """The other site of the source that predicts this one best, by its median."""
    others = at_site(scored, site).filter(pl.col("map") == name, pl.col("source_site") != site)
    found = by_site(others.with_columns(site=pl.col("source_site")))
    best = max(found, key=lambda other: found[other], default=None)
    return None if best is None else (best, found[best])


def _cells(scored: pl.DataFrame, name: str, site: str) -> tuple[str, str]:
    other = _best_other(scored, name, site)
    return cell(_same(scored, name, site)), "–" if other is None else f"{told(other[1])} from {other[0]}"


def _verdict(scored: pl.DataFrame, name: str, sites: list[str]) -> str:
    margins: dict[str, float] = {}
    for site in sites:
        own, other = median(_same(scored, name, site)), _best_other(scored, name, site)
        if own is not None and other is not None:
            margins[site] = own - other[1]
    if not margins:
        return f"Through {MAPS[name]} there is no other site to compare with."
    right = [site for site in sites if margins.get(site, 0.0) > 0]
    start = f"Through {MAPS[name]} the same site predicts best {of_sites(right, list(margins))}"
    if len(right) == len(margins):
        return f"{start}; closest is {_against(scored, name, min(margins, key=lambda site: margins[site]))}."
    wrong = [site for site in margins if site not in right]
    worst = min(wrong, key=lambda site: margins[site])
    return (
        f"{start}; {at(wrong)} another site does as well or better, most at "
        f"{_against(scored, name, worst)}: that is no evidence of matching layers there."
    )


def _against(scored: pl.DataFrame, name: str, site: str) -> str:
    other = _best_other(scored, name, site)
    assert other is not None  # a site with a margin has another one beside it
    return f"{site} (R² {middle(_same(scored, name, site))}, from {other[0]} {told(other[1])})"
