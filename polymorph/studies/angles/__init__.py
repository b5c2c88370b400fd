"""By which angles does R turn?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="By which angles does R turn?",
    place=70,
    columns={"index": pl.Int64},
    kinds=frozenset({"planted", "trained"}),
    scope="pairs",
    figures=("figure",),
    last_steps_only=True,
)
