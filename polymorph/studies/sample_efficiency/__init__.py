"""How many tokens does a fit need?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="How many tokens does a fit need?",
    place=120,
    columns={"fit_tokens": pl.Int64},
    scope="pairs",
    figures=("figure",),
)
