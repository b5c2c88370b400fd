"""The tables that answers read, each with all of its columns."""

from collections.abc import Mapping

import polars as pl

from polymorph.plotting.table_rows import at_last_steps, completed
from polymorph.studies.registry import schema_of

Tables = Mapping[str, pl.DataFrame]
_OF_ALL_STEPS = ("ladder", "angles")


def table_of(tables: Tables, study: str) -> pl.DataFrame:
    """The rows of a study, of those about all steps at the last ones; no rows where it was not made.

    Other tables stay whole: the ceiling of a stitching is an earlier step, and a trajectory is all of them.
    """
    rows = completed(tables.get(study, pl.DataFrame()), schema_of(study))
    return at_last_steps(rows) if study in _OF_ALL_STEPS else rows
