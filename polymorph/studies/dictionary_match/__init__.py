"""Do the SAEs of two members have the same features?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Do the SAEs of two members have the same features?",
    place=200,
    columns={"sae": pl.String, "arrangement": pl.String},
    needs=frozenset(["SAEs"]),
    lacking="SAEs of two members, or two of one, at these checkpoints (python train.py stage=sae)",
    figures=("figure",),
)
