"""Which of the paper's four bars does the cohort pass, and which would a decoy pass too?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Which of the paper's four bars does the cohort pass, and which would a decoy pass too?",
    place=180,
    columns={
        "bar": pl.String,
        "scope": pl.String,
        "decoy": pl.String,
        "head": pl.String,
        "distribution": pl.String,
    },
    needs=frozenset(["models"]),
    lacking="members that are models",
    scope="all",
    figures=("figure",),
)
