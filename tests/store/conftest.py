"""A small cohort on disk."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from store_faults import IDENTITY, weights_of

from polymorph.store import Cohort, Member
from polymorph.store.process_liveness import home

MEMORY = "/dev/shm"
torch.set_num_threads(1)  # the tests fork
home()  # known before any call is made to fail


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: syncing thousands of files to a disk takes long."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="cohort-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort.create(tmp_path / "dyck", IDENTITY)


@pytest.fixture
def member(cohort: Cohort) -> Member:
    """A member with a published step and a state, both at 10."""
    member = cohort.member(3)
    member.publish_step(10, weights_of(10), {"config": "c"})
    member.publish_state(10, weights_of(110), {"config": "c"})
    return member
