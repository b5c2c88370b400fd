"""The annotated shapes of the moments and of alignment are checked in every test that imports them."""

import pytest
import torch
from jaxtyping import install_import_hook

# Before the first import of these modules, or it sees nothing.
install_import_hook(["polymorph.alignment.moments", "polymorph.alignment"], "beartype.beartype")


@pytest.fixture
def generator() -> torch.Generator:
    """The randomness of a test; every draw in it comes from here."""
    return torch.Generator().manual_seed(20240607)
