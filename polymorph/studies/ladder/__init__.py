"""How far does each family of maps go?"""

import polars as pl

from polymorph.studies.definitions import DETERMINED_DIMENSION, PAIRS_SHARE_SEEDS, R2
from polymorph.studies.study import Study

GAPS = "of a pair: R² of affine − orthogonal, affine − similarity, similarity − orthogonal"
FROBENIUS_FROM_IDENTITY = "of R: ‖R − I‖_F = √(2d − 2 tr R): the trace, and nothing else"
FROBENIUS_HAAR_SCALE = "of d: √(2d), the root mean square of `frobenius_from_identity` for a Haar-random R"
TRACE_AND_DETERMINANT = "of R: tr R; +1 or −1"
ON_SUPPORT = "of R: Σ u_iᵀv_i over the determined directions; arccos of its mean"
PARTICIPATION_RATIO = "of activations: (tr C)² / tr C²: effective dimensions, 1 to d"

STUDY = Study(
    package=__name__,
    question="How far does each family of maps go?",
    place=60,
    metrics={
        "r2": R2,
        "orthogonality_gap": GAPS,
        "similarity_gap": GAPS,
        "scale_gap": GAPS,
        "ladder_share": (
            "of the orthogonal map: (R² − floor) / (1 − floor), the floor fitted and scored on "
            "permuted tokens"
        ),
        "frobenius_from_identity": FROBENIUS_FROM_IDENTITY,
        "frobenius_haar_scale": FROBENIUS_HAAR_SCALE,
        "trace": TRACE_AND_DETERMINANT,
        "determinant": TRACE_AND_DETERMINANT,
        "determined_dimension": DETERMINED_DIMENSION,
        "trace_on_support": ON_SUPPORT,
        "angle_on_support": ON_SUPPORT,
        "participation_ratio_source": PARTICIPATION_RATIO,
        "participation_ratio_target": PARTICIPATION_RATIO,
    },
    columns={"control": pl.String},
    scope="pairs",
    figures=("r2_by_site",),
    figures_of_training=("r2_trajectory", "frobenius_trajectory"),
    last_steps_only=True,
    limits=(
        "A high R² of R says that one rotation or reflection, fitted on other documents, carries most of "
        "the variance. It does not show an isometry: that is rejected where the affine map gains more than "
        "0.01 with the whole interval, and not rejected means within that bound on these documents.",
        "Noise of its own in each member makes that gap too, and the ceiling is what noise and further training leave.",
        "Read every R² between its control and its ceiling. Where documents paired at random score nearly "
        "as high, position in the document explains it.",
        "R² weighs dimensions by their variance: a few large axes can decide it (see massive_activations). "
        + PAIRS_SHARE_SEEDS,
    ),
)
