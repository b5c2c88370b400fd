"""Is R like a uniformly random rotation?"""

import polars as pl

from polymorph.alignment.multiplicity import SIGNIFICANCE
from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import at, joined, nothing, of_sites, shortened, together, told
from polymorph.plotting.table_rows import at_site
from polymorph.plotting.wording import DASH, number
from polymorph.studies.registry import table_of
from polymorph.studies.study import Tables

STUDY = "haar"
REGISTERED = "registered"
LAWS = ("refit", "exact")


def answer(rows: pl.DataFrame, tables: Tables) -> Answer:
    """p of the registered pair where R is determined whole, and where the test was refused."""
    sites = sites_in_order(rows)
    if not sites:
        return nothing("R was not compared with a random rotation: no two members were.")
    p = {site: value for site in sites if (value := _p(at_site(rows, site))) is not None}
    refused = [site for site in sites if site not in p]
    lines = [_line(at_site(rows, site), site, p.get(site)) for site in sites]
    columns = (
        "site",
        "dimensions determined",
        "p, registered pair",
        "verdict before adjustment",
        "paper's KS p (size 0)",
    )
    text = joined([_refused(rows, refused, sites), _tested(p), _unrelated(p, tables)])
    return Answer(text, columns, shortened(lines))


def _p(here: pl.DataFrame) -> float | None:
    """Of the registered pair, under the law that repeats the estimation where there is one."""
    for law in LAWS:
        found = here.filter(metric="p_value", statistic=REGISTERED, law=law)["value"]
        if len(found):
            return float(found[0])
    return None


def _determined(here: pl.DataFrame) -> str:
    ends = [here.filter(metric=metric)["value"] for metric in ("determined_dimension", "dimension")]
    if any(end.is_empty() for end in ends):
        return DASH
    return f"{number(float(ends[0].min()), 0)} of {number(float(ends[1].max()), 0)}"  # type: ignore[arg-type]


def _line(here: pl.DataFrame, site: str, p: float | None) -> tuple[str, ...]:
    paper = here.filter(metric="paper_ks_p")["value"]
    verdict = "refused" if p is None else "departs" if p < SIGNIFICANCE else "not distinguished"
    return (site, _determined(here), told(p), verdict, told(float(paper[0])) if len(paper) else DASH)


def _refused(rows: pl.DataFrame, refused: list[str], sites: list[str]) -> str:
    if not refused:
        return ""
    each = together(f"{_determined(at_site(rows, site))} at {site}" for site in refused)
    start = "Not to be answered" if len(refused) == len(sites) else "Not to be answered everywhere"
    return (
        f"{start}: {of_sites(refused, sites)} the data do not determine R whole, and the test is "
        f"refused. Dimensions determined: {each}."
    )


def _tested(p: dict[str, float]) -> str:
    if not p:
        return ""
    departing = [site for site, value in p.items() if value < SIGNIFICANCE]
    other = [site for site in p if site not in departing]
    told_of = [f"R departs from a uniformly random rotation {_with_p(departing, p)}"] if departing else []
    if other:
        told_of.append(f"R is not distinguished from a uniformly random rotation {_with_p(other, p)}")
    return "; ".join(told_of) + " (registered pair of tests, not adjusted)."


def _with_p(sites: list[str], p: dict[str, float]) -> str:
    return at([f"{site} (p = {told(p[site])})" for site in sites])


def _unrelated(p: dict[str, float], tables: Tables) -> str:
    """Where nothing shows that there is anything for R to relate."""
    pairing = table_of(tables, "pairing").filter(pl.col("source").is_null(), metric="p_value")
    beyond = dict(pairing.select("site", "value").iter_rows())
    sites = [site for site in p if site in beyond and beyond[site] >= SIGNIFICANCE]
    return (
        f"It says nothing {at(sites)}, where the members are not shown to be related at all." if sites else ""
    )
