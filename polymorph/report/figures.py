"""Every figure of a report, in the order of the page."""

from collections.abc import Mapping

from polymorph.plotting.plate import Drawn
from polymorph.plotting.table_rows import HISTORY, at_last_steps, completed
from polymorph.report import training_curves
from polymorph.report.data import LADDER, ReportData
from polymorph.studies.registry import STUDIES

MEMBERS = "members"
"""The section of what is about members by themselves, and belongs to no study."""


def draw_all(report: ReportData) -> Mapping[str, tuple[Drawn, ...]]:
    """Study → its figures, in the order of the page; what cannot be drawn is `Missing`, with its reason.

    A study that was not made has no figure, but for the ladder, beside which all others are read; members that were
    not trained have none of their training.
    """
    drawn: dict[str, tuple[Drawn, ...]] = {}
    if report.trained:
        drawn[MEMBERS] = (training_curves.plate(completed(report.history, HISTORY)),)
    last = at_last_steps(report.ladder)
    for name, study in STUDIES.items():
        if name in report.tables or name == LADDER:
            drawn[name] = tuple(study.plates(report.table(name), last, report.trained))
    return drawn
