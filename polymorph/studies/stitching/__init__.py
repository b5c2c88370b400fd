"""Can the upper part of one member read the lower part of another through a map?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Can the upper part of one member read the lower part of another through a map?",
    place=150,
    columns={"head": pl.String, "control": pl.String},
    needs=frozenset(["models"]),
    lacking="members that are models",
    scope="pairs",
    figures=("figure",),
)
