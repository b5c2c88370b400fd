"""Do steering vectors of one member work on another, and through which map?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Do steering vectors of one member work on another, and through which map?",
    place=160,
    columns={
        "contrast": pl.String,
        "group": pl.String,
        "head": pl.String,
        "dose": pl.Float64,
        "control": pl.String,
        "regime": pl.String,
        "predictor": pl.String,
    },
    needs=frozenset(["models"]),
    lacking="members that are models",
    options=("steering",),
    scope="all",
    figures=("figure",),
)
