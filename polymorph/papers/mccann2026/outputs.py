"""The paper beside an analysis that is there: its ledger, and figures for print. Nothing is computed again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from polymorph.evidence.rows import read_table
from polymorph.papers.mccann2026.entries import load_ledger
from polymorph.papers.mccann2026.facts import facts_of
from polymorph.papers.mccann2026.figures import PAPER_FIGURES, for_paper
from polymorph.papers.mccann2026.figures.sheet import WIDTHS, at_width, saved_for_print
from polymorph.papers.mccann2026.ledger import Judged, judge_all, write_ledger
from polymorph.papers.mccann2026.ledger_page import render_ledger
from polymorph.plotting.plate import Missing, Plate
from polymorph.plotting.table_rows import at_last_steps
from polymorph.store import Cohort, Results
from polymorph.studies.registry import STUDIES

LEDGER_JSON, LEDGER_PAGE = "ledger.json", "ledger.html"
FOLDER = "paper"


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
    """The figures of the paper for print, as PDF in the folder `paper`; what was written, and why others were not.

    Those of the page stand there too, as they are, at the width of two columns: at that of one they could not be read.
    """
    tables, files, told, captions = tables_of(results), {}, [], []
    for name in PAPER_FIGURES:
        for columns in WIDTHS:
            drawn = for_paper(name, tables, columns)
            if isinstance(drawn, Plate):
                files[f"{name}-{columns}.pdf"] = saved_for_print(drawn.figure)
        if isinstance(drawn, Missing):
            told.append(f"no figure {name}: {drawn.reason}")
        else:
            captions.append(f"{name}: {drawn.title}. {drawn.caption}")
    files["captions.txt"] = ("\n\n".join(captions) + "\n").encode()
    page = [name for name in results.written() if name.endswith(".svg")]
    files |= {name: at_width(results.read(name), 2) for name in page}
    results.add(files, FOLDER)
    return [*told, f"figures: {len(files) - 1} files and their captions in {results.folder / FOLDER}"]
