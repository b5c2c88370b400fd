"""How many tokens does a fit need?"""

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import across, by_site, cell, joined, middle, nothing, shortened
from polymorph.plotting.table_rows import at_site, measured
from polymorph.plotting.wording import DASH, whole
from polymorph.studies.sample_efficiency.rows import WITHIN
from polymorph.studies.study import Tables

STUDY = "sample_efficiency"
MAPS = {"orthogonal": "R", "affine": "affine"}


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """Tokens from which on R and the affine map stay near their limits, at the site that needs most."""
    curves = measured(rows, "r2")
    if curves.is_empty():
        return nothing("No map was fitted on a part of the tokens, so how many it needs is not known.")
    sites = sites_in_order(curves)
    most = int(curves["fit_tokens"].max())  # type: ignore[arg-type]
    lines = [(site, *(part for name in MAPS for part in _cells(at_site(rows, site), name))) for site in sites]
    columns = (
        "site",
        *(f"{name}, {what}" for name in MAPS.values() for what in ("tokens needed", "R² limit")),
    )
    return Answer(joined(_need(rows, name, most) for name in MAPS), columns, shortened(lines))


def tokens(value: float) -> str:
    """A number of tokens."""
    return whole(round(value))


def _of(rows: pl.DataFrame, metric: str, name: str) -> pl.DataFrame:
    return measured(rows, metric).filter(map=name)


def _cells(here: pl.DataFrame, name: str) -> tuple[str, str]:
    reached, limit = _of(here, "tokens_to_limit", name), _of(here, "r2_limit", name)
    lacking = limit.height - reached.height
    note = f", not reached in {lacking} of {limit.height}" if lacking > 0 else ""
    return (cell(reached, tokens) if reached.height else DASH) + note, cell(limit)


def _need(rows: pl.DataFrame, name: str, most: int) -> str:
    reached, limits = _of(rows, "tokens_to_limit", name), _of(rows, "r2_limit", name)
    who = "R" if name == "orthogonal" else "An affine map"
    if limits.is_empty():
        return f"{who} has no limit to compare with."
    lacking = limits.height - reached.height
    with_all = f"with all {whole(most)} tokens"
    if reached.is_empty():
        return f"{who} does not come within {WITHIN} of its limit {with_all} in any of {limits.height} fits."
    short = f"; in {lacking} of {limits.height} fits it is not there {with_all}" if lacking > 0 else ""
    values = by_site(reached)
    site = max(values, key=lambda place: values[place])
    limit = middle(_of(at_site(rows, site), "r2_limit", name))
    return (
        f"{who} comes within {WITHIN} of its limit (R² {limit}) with "
        f"{across(at_site(reached, site), tokens)} tokens at {site}, which needs most{short}."
    )
