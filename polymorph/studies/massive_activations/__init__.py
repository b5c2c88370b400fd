"""Do a few dimensions carry the residual stream, and the numbers of the other studies with it?"""

import polars as pl

from polymorph.studies.definitions import PAIRS_SHARE_SEEDS
from polymorph.studies.study import Study

ONE_AXIS = "of a massive `axis` of a member: the same of one axis; the 8 largest"
OF_WHAT_IS_LEFT = "of R of what is left, k dimensions: as in the ladder, with √(2k)"

STUDY = Study(
    package=__name__,
    question="Do a few dimensions carry the residual stream, and the numbers of the other studies with it?",
    place=40,
    metrics={
        "massive_dimensions": "of a member (`target`): how many of its axes are massive",
        "rms_max_over_median": "of a member: RMS of its largest axis, in medians",
        "massive_variance_share": "of a member: share of the trace of its centred covariance in its massive axes",
        "rms_over_median": ONE_AXIS,
        "axis_variance_share": ONE_AXIS,
        "r2": "of `identity`, `orthogonal`, `affine`: as in the ladder, of what is left of both sides",
        "frobenius_from_identity": OF_WHAT_IS_LEFT,
        "frobenius_haar_scale": OF_WHAT_IS_LEFT,
        "determined_dimension": OF_WHAT_IS_LEFT,
        "explained_variance": (
            "`centred`, of a member's own SAE: of what is left; the SAE reads everything; on the "
            "first 128 eval documents, where members are models"
        ),
    },
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
    limits=(
        "An axis is massive whose root mean square is 10 medians over axes or more. It can show "
        "whether such axes decide R² and explained variance, and not why they are there.",
        "R² that changes without the massive axes, and not without as many random ones (the control), was "
        "decided by those axes: it then holds for them, and not for the stream.",
        PAIRS_SHARE_SEEDS,
    ),
)
