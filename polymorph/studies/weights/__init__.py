"""Are two members one model up to the symmetries of their architecture?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Are two members one model up to the symmetries of their architecture?",
    place=140,
    columns={
        "group": pl.String,
        "start": pl.String,
        "control": pl.String,
        "fraction": pl.Float64,
    },
    needs=frozenset(["models"]),
    lacking="models of an architecture with a table of symmetries (polymorph/models/symmetries.py)",
    scope="all",
    figures=("figure",),
)
