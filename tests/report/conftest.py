"""One planted report for all tests of the room, and the same with every study; both are made once."""

from collections.abc import Iterator, Mapping

import pytest
import torch
from planted_report import plates_of, report, with_studies

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
def by_section(planted: ReportData) -> Mapping[str, tuple[Drawn, ...]]:
    """Its figures, by the section of the page that they stand in."""
    return draw_all(planted)


@pytest.fixture(scope="session")
def drawn(by_section: Mapping[str, tuple[Drawn, ...]]) -> tuple[Drawn, ...]:
    """Its figures, in the order of the page."""
    return plates_of(by_section)


@pytest.fixture(scope="session")
def files(drawn: tuple[Drawn, ...]) -> dict[str, bytes]:
    """Their files."""
    return figure_files(drawn)
