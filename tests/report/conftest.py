"""The figures of the planted report, which are drawn once."""

from collections.abc import Mapping

import pytest
from planted_report import of_all

from polymorph.plotting.plate import Drawn
from polymorph.report.data import ReportData
from polymorph.report.figure_files import figure_files
from polymorph.report.figures import draw_all


@pytest.fixture(scope="session")
def drawn(planted: ReportData) -> Mapping[str, tuple[Drawn, ...]]:
    """Its figures, by study."""
    return draw_all(planted)


@pytest.fixture(scope="session")
def listed(drawn: Mapping[str, tuple[Drawn, ...]]) -> list[Drawn]:
    """The same, in the order of the page."""
    return of_all(drawn)


@pytest.fixture(scope="session")
def files(listed: list[Drawn]) -> dict[str, bytes]:
    """Their files."""
    return figure_files(listed)
