"""All files of an analysis: tables, claims, figures and the page."""

import itertools
from collections.abc import Sequence

from polymorph.evidence.rows import write_table
from polymorph.report.data import ReportData
from polymorph.report.figure_files import figure_files
from polymorph.report.figures import draw_all
from polymorph.report.page import render_page
from polymorph.verdicts.claim import write_claims

PAGE, CLAIMS = "report.html", "claims.json"


def bundle(report: ReportData, names: Sequence[str]) -> dict[str, bytes]:
    """File name → bytes; `names` are the studies whose tables are written."""
    drawn = draw_all(report)
    figures = figure_files(itertools.chain.from_iterable(drawn.values()))
    tables = {f"{name}.parquet": write_table(report.tables[name]) for name in names if name in report.tables}
    page = {PAGE: render_page(report, drawn, figures).encode(), CLAIMS: write_claims(report.claims)}
    return tables | figures | page
