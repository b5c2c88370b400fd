"""Is the right layer the best one?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Is the right layer the best one?",
    place=110,
    columns={"source_site": pl.String},
    needs=frozenset(["sites"]),
    lacking="more than one site",
    scope="all",
    figures=("figure",),
)
