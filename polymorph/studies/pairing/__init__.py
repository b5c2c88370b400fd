"""Are the members related at all?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Are the members related at all?",
    place=30,
    columns={"statistic": pl.String},
    figures=("figure",),
)
