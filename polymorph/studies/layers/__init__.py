"""Is the right layer the best one?"""

import polars as pl

from polymorph.studies.definitions import PAIRS_SHARE_SEEDS, R2
from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Is the right layer the best one?",
    place=110,
    metrics={
        "r2": R2,
    },
    columns={"source_site": pl.String},
    needs=frozenset(["sites"]),
    scope="all",
    figures=("figure",),
    limits=(
        "Other layers are the control of the wrong place: where one predicts a site as well as the same "
        "site of the other member does, what the map carries does not belong to that site.",
        "A later site often predicts an earlier one through an affine map, because the stream still holds "
        "it: that is no failure, and no sign of matching layers either.",
        "Medians over pairs, of maps fitted on one half of the fit split and scored on the other, without intervals. "
        + PAIRS_SHARE_SEEDS,
    ),
)
