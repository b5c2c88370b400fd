"""Do a few dimensions carry the residual stream, and the numbers of the other studies with it?"""

import itertools

import polars as pl

from polymorph.alignment.axes import MASSIVE
from polymorph.plotting.answer import Answer
from polymorph.plotting.sae_panels import median
from polymorph.plotting.sentences import (
    ALIKE,
    across,
    by_site,
    cell,
    joined,
    middle,
    nothing,
    of_sites,
    share,
    shortened,
    together,
    told,
)
from polymorph.plotting.table_rows import at_site, measured
from polymorph.plotting.wording import counted, number
from polymorph.studies.massive_activations.rows import ALL, RANDOM, WITHOUT
from polymorph.studies.study import Tables

STUDY = "massive_activations"
MAPS = {"identity": "as they are", "orthogonal": "through R"}
SETS = (ALL, WITHOUT, RANDOM)


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """How large the largest axes are, and R² with and without them."""
    largest = measured(rows, "rms_max_over_median")
    if largest.is_empty():
        return nothing("No member's axes were measured, so nothing is known of massive ones.")
    counts = measured(rows, "massive_dimensions")
    sites = list(by_site(largest))
    found = [site for site in sites if at_site(counts, site).filter(pl.col("value") > 0).height]
    lines = [_line(at_site(rows, site), site) for site in sites]
    columns = (
        "site",
        "massive axes",
        "largest / median",
        "share of variance",
        *(f"R² {how}, all; without; control" for how in MAPS.values()),
    )
    text = _none(largest) if not found else joined([_massive(rows, found, sites), _decided(rows, found)])
    return Answer(text, columns, shortened(lines))


def _line(here: pl.DataFrame, site: str) -> tuple[str, ...]:
    scores = ("; ".join(middle(_r2(here, name, axes)) for axes in SETS) for name in MAPS)
    return (
        site,
        cell(measured(here, "massive_dimensions"), lambda value: number(value, 0)),
        cell(measured(here, "rms_max_over_median")),
        cell(measured(here, "massive_variance_share"), share),
        *scores,
    )


def _r2(here: pl.DataFrame, name: str, axes: str) -> pl.DataFrame:
    return here.filter(metric="r2", map=name, axes=axes)


def _none(largest: pl.DataFrame) -> str:
    values = by_site(largest)
    site = max(values, key=lambda name: values[name])
    return (
        f"No: {of_sites([], list(values))} has any member an axis of {MASSIVE:g} times the median root "
        f"mean square or more. The largest, at {site}, has {across(at_site(largest, site))} times, so "
        "nothing had to be left out."
    )


def _massive(rows: pl.DataFrame, found: list[str], sites: list[str]) -> str:
    shares = by_site(measured(rows, "massive_variance_share"))
    site = max(found, key=lambda name: shares.get(name, 0.0))
    here = at_site(rows, site)
    count = cell(measured(here, "massive_dimensions"), lambda value: number(value, 0))
    return (
        f"In part: {of_sites(found, sites)} some member has a massive axis. They hold most at {site}: "
        f"{across(measured(here, 'massive_variance_share'), share)} of the variance in {count} of the "
        f"axes, the largest {middle(measured(here, 'rms_max_over_median'))} times the median."
    )


def _decided(rows: pl.DataFrame, found: list[str]) -> str:
    """Where R² is another one without them, and not without as many others."""
    decided: list[tuple[float, str]] = []
    kept, missing = [], []
    for site, (name, how) in itertools.product(found, MAPS.items()):
        scores = [median(_r2(at_site(rows, site), name, axes)) for axes in SETS]
        if None in scores:
            missing.append(f"{how} at {site}")
            continue
        whole, without, others = (float(score or 0.0) for score in scores)
        if min(abs(whole - without), abs(others - without)) > ALIKE:
            text = f"R² {how} at {site} is {told(whole)}, without them {told(without)}"
            decided.append((abs(whole - without), f"{text}, without as many random axes {told(others)}"))
        else:
            kept.append(f"{how} at {site}")
    most = [text for _, text in sorted(decided, reverse=True)]
    more = f"; {len(most) - 2} more" if most[2:] else ""
    return joined(
        [
            f"They decide {counted(len(most), 'number')}: {'; '.join(most[:2])}{more}." if most else "",
            f"They do not decide R² {together(kept)}." if kept else "",
            f"R² without them is missing {together(missing)}." if missing else "",
        ]
    )
