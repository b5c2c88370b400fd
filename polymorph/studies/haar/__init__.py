"""Is R like a uniformly random rotation?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Is R like a uniformly random rotation?",
    place=90,
    columns={"statistic": pl.String, "law": pl.String},
    figures=("figure",),
)
