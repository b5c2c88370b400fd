"""Do a few dimensions carry the residual stream, and the numbers of the other studies with it?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Do a few dimensions carry the residual stream, and the numbers of the other studies with it?",
    place=40,
    columns={
        "axis": pl.Int64,
        "axes": pl.String,
        "sae": pl.String,
        "variant": pl.String,
    },
    kinds=frozenset({"planted", "trained"}),
    reads_saes=True,
    scope="pairs",
    figures=("figure",),
)
