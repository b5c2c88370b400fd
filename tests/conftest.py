"""The annotated shapes of the moments and of alignment are checked in every test that imports them."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook

# Before the first import of these modules, or it sees nothing.
install_import_hook(["polymorph.alignment.moments", "polymorph.alignment"], "beartype.beartype")


@pytest.fixture
def generator() -> torch.Generator:
    """The randomness of a test; every draw in it comes from here."""
    return torch.Generator().manual_seed(20240607)


@pytest.fixture(scope="session")
def planted() -> Iterator[Any]:
    """A report of three seeds at three steps; small matrices are faster, by far, on one thread."""
    from planted_report import report

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield report()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def studied(planted: Any) -> Any:
    """The same members with the tables of all studies and their claims."""
    from planted_report import with_studies

    return with_studies(planted)
