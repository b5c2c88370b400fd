"""Do the same parts matter in every member, and can that be predicted?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Do the same parts matter in every member, and can that be predicted?",
    place=170,
    columns={
        "kind": pl.String,
        "component": pl.String,
        "head": pl.String,
        "attribution": pl.String,
        "assignment": pl.String,
        "statistic": pl.String,
        "order": pl.String,
        "removed": pl.Int64,
    },
    needs=frozenset(["models"]),
    lacking="members that are models",
    options=("components",),
    scope="all",
    figures=("figure",),
)
