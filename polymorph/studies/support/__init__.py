"""Which part of R do the data determine?"""

import polars as pl

from polymorph.studies.definitions import DETERMINED_DIMENSION, DIMENSION
from polymorph.studies.study import Study

R2_ON_SUPPORT = (
    "`on_support`, of a pair: R², and the gaps of the ladder, between the determined directions of "
    "either side"
)

STUDY = Study(
    package=__name__,
    question="Which part of R do the data determine?",
    place=80,
    metrics={
        "determined_dimension": DETERMINED_DIMENSION,
        "dimension": DIMENSION,
        "rank": "of the activations: their numerical rank",
        "median_standard_error": "of R: of the planes of the determined directions, radians",
        "split_half_angle": (
            "of R: √mean‖u_i (R₁ − R₂)‖² over the determined directions, R₁ and R₂ of halves of the "
            "fit documents"
        ),
        "trace_on_support": "of R: Σ u_iᵀv_i over the determined directions",
        "pinned_dimension": "of R: determined dimensions that R leaves where they are",
        "privileged_axes": "of R: coordinate axes that R carries to coordinate axes (an entry above 0.9)",
        "r2": "`per_component`, of a map: its R² in one principal component of the target",
        "r2_orthogonal": R2_ON_SUPPORT,
        "r2_similarity": R2_ON_SUPPORT,
        "r2_affine": R2_ON_SUPPORT,
        "orthogonality_gap": R2_ON_SUPPORT,
        "similarity_gap": R2_ON_SUPPORT,
        "scale_gap": R2_ON_SUPPORT,
    },
    columns={"component": pl.Int64},
    scope="pairs",
    figures=("figure", "principal_components"),
    limits=(
        "It can show of how many dimensions R says something about the members: directions whose planes are "
        "known to 0.1 rad. Where r < d, no statistic of the whole of R (trace, determinant, distance from "
        "I, Haar tests) does.",
        "The rest of R is not random, it is unknown: it looks random by construction. More or other "
        "documents may determine it, unless the ceiling is as low, for then the streams have no more "
        "dimensions.",
        "r is a count, without an interval, and depends on the number of tokens.",
    ),
)
