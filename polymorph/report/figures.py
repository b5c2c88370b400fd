"""Every figure of a report, in the order of the page."""

from collections.abc import Mapping

from polymorph.plotting.plate import Drawn
from polymorph.plotting.table_rows import HISTORY, at_last_steps, completed
from polymorph.report import training_curves
from polymorph.report.data import ReportData, angles_of, ladder_of
from polymorph.studies.registry import STUDIES, schema_of

MEMBERS = "members"
"""The section of what is about members by themselves, and belongs to no study."""
LADDER, ANGLES = "ladder", "angles"


def draw_all(report: ReportData) -> Mapping[str, tuple[Drawn, ...]]:
    """Study → its figures, in the order of the page; what cannot be drawn is `Missing`, with its reason.

    A study that was not made has no figure, but for the ladder, beside which all others are read; members that were
    not trained have none of their training.
    """
    ladder = ladder_of(report)
    whole = {LADDER: ladder} | (
        {ANGLES: angles_of(report)} if ANGLES in report.tables or not report.tables else {}
    )
    whole = {name: completed(rows, schema_of(name)) for name, rows in report.tables.items()} | whole
    drawn: dict[str, tuple[Drawn, ...]] = {}
    if report.trained:
        drawn[MEMBERS] = (training_curves.plate(completed(report.history, HISTORY)),)
    for name, study in STUDIES.items():
        if name in whole:
            drawn[name] = tuple(study.plates(whole[name], at_last_steps(ladder), report.trained))
    return drawn
