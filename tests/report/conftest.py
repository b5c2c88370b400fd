"""One planted report for all tests of the room, and the same with every study; both are made once."""

from collections.abc import Iterator, Mapping

import pytest
import torch
from planted_report import of_all, report, with_studies

from polymorph.plotting.plate import Drawn
from polymorph.report.data import ReportData
from polymorph.report.figure_files import figure_files
from polymorph.report.figures import draw_all


@pytest.fixture(scope="session")
def planted() -> Iterator[ReportData]:
    """Three seeds at three steps; small matrices are faster, by far, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield report()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def studied(planted: ReportData) -> ReportData:
    """The same members with the tables of all studies and their claims."""
    return with_studies(planted)


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
