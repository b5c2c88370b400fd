"""What is kept: members, their checkpoints and states, and pairs; the only room that knows paths."""

from polymorph.store.canonical_json import canonical, digest
from polymorph.store.checkpoints import Checkpoint, State
from polymorph.store.cohort import Cohort, check_names, check_writable
from polymorph.store.errors import (
    ConflictError,
    CorruptError,
    NoSpaceError,
    UnreadableError,
    VersionError,
    WriteError,
)
from polymorph.store.leftovers import sweep
from polymorph.store.manifest import Entry, Manifest
from polymorph.store.member import Member
from polymorph.store.names import check_name
from polymorph.store.pair_rows import Pairs
from polymorph.store.publication import Published, is_published, publish, publish_again, read
from polymorph.store.results import Results
from polymorph.store.status import STATES, Status

__all__ = [
    "STATES",
    "Checkpoint",
    "Cohort",
    "ConflictError",
    "CorruptError",
    "Entry",
    "Manifest",
    "Member",
    "NoSpaceError",
    "Pairs",
    "Published",
    "Results",
    "State",
    "Status",
    "UnreadableError",
    "VersionError",
    "WriteError",
    "canonical",
    "check_name",
    "check_names",
    "check_writable",
    "digest",
    "is_published",
    "publish",
    "publish_again",
    "read",
    "sweep",
]
