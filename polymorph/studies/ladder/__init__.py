"""How far does each family of maps go?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="How far does each family of maps go?",
    place=60,
    columns={"control": pl.String},
    scope="pairs",
    figures=("r2_by_site",),
    figures_of_training=("r2_trajectory", "frobenius_trajectory"),
    last_steps_only=True,
)
