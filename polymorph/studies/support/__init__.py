"""Which part of R do the data determine?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Which part of R do the data determine?",
    place=80,
    columns={"component": pl.Int64},
    scope="pairs",
    figures=("figure", "principal_components"),
)
