"""Do the maps agree round a cycle?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Do the maps agree round a cycle?",
    place=100,
    columns={"third": pl.Int64},
    lacking="at least three members and all their pairs (pairs=all)",
    figures=("figure",),
)
