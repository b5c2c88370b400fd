"""Are the members related at all?"""

import polars as pl

from polymorph.alignment.multiplicity import SIGNIFICANCE
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import (
    across,
    by_site,
    cell,
    joined,
    near,
    nothing,
    of_sites,
    shortened,
    told,
)
from polymorph.plotting.table_rows import at_site, measured
from polymorph.studies.study import Tables

STUDY = "pairing"


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """p of all members together, and the site with most and with least beyond position."""
    observed, chance = measured(rows, "rv_coefficient"), measured(rows, "rv_coefficient", "null")
    if observed.is_empty():
        return nothing("No two members were compared, so nothing is known of their relation.")
    p = by_site(measured(rows, "p_value").filter(pl.col("source").is_null()))
    sites = list(by_site(observed))
    lines = [
        (site, cell(at_site(observed, site)), cell(at_site(chance, site)), told(p.get(site)))
        for site in sites
    ]
    columns = ("site", "RV coefficient, median [least, greatest]", "permuted documents", "p, all members")
    text = joined([_verdict(p), _ends(observed, chance)])
    return Answer(text, columns, shortened(lines))


def _verdict(p: dict[str, float]) -> str:
    if not p:
        return "There is no p-value for all members together."
    shown = [site for site, value in p.items() if value < SIGNIFICANCE]
    if not shown:
        least = told(min(p.values()))
        return f"Not shown at any site: permuted documents reach what the members have in common, p at least {least}."
    most = told(max(p[site] for site in shown))
    start = "Yes" if len(shown) == len(p) else "In part"
    return (
        f"{start}, {of_sites(shown, list(p))} the members have more in common than permuted documents "
        f"give (p at most {most})."
    )


def _ends(observed: pl.DataFrame, chance: pl.DataFrame) -> str:
    """The sites that stand out of their null most and least."""
    values, nulls = by_site(observed), by_site(chance)
    known = sorted((site for site in values if site in nulls), key=lambda site: values[site] - nulls[site])
    if not known:
        return "What permuted documents give was not measured."
    told_of = [_one(observed, chance, site) for site in dict.fromkeys((known[-1], known[0]))]
    return f"Most beyond position: {told_of[0]}." + (f" Least: {told_of[1]}." if told_of[1:] else "")


def _one(observed: pl.DataFrame, chance: pl.DataFrame, site: str) -> str:
    own, null = at_site(observed, site), at_site(chance, site)
    text = f"{site}, RV {across(own)} where permuted documents give {cell(null)}"
    if by_site(null)[site] >= by_site(own)[site]:
        return f"{text}, which is no less"
    return (
        f"{text}, so position alone explains nearly all of it" if near(by_site(null), by_site(own)) else text
    )
