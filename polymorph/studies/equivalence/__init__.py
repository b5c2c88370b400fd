"""Do the members compute the same function?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Do the members compute the same function?",
    place=10,
    columns={
        "distribution": pl.String,
        "head": pl.String,
        "control": pl.String,
    },
    needs=frozenset(["models"]),
    lacking="members that are models",
    scope="all",
    figures=("figure",),
)
