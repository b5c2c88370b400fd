"""How well does each member say its labels, by how much of the document it has read?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="How well does each member say its labels, by how much of the document it has read?",
    place=20,
    columns={
        "head": pl.String,
        "from_position": pl.Int64,
        "to_position": pl.Int64,
    },
    needs=frozenset(["labels"]),
    lacking="members that say labels",
    scope="all",
    figures=("figure",),
)
