"""Is an isometry possible?"""

from polymorph.studies.definitions import PAIRS_SHARE_SEEDS
from polymorph.studies.study import Study

DISTANCES = (
    "of a pair: Σ(√λ_x − √λ_y)² and 2[Σ√(λ_xλ_y) − ‖C_xy‖_*], in shares of tr C_y: they add up to the "
    "Procrustes residual"
)
NORMS = "of a pair: line through the norms of the centred tokens"

STUDY = Study(
    package=__name__,
    question="Is an isometry possible?",
    place=50,
    metrics={
        "variance_ratio": "of a pair: tr C_x / tr C_y",
        "spectral_distance": DISTANCES,
        "relational_distance": DISTANCES,
        "procrustes_angle": (
            "of the orthogonal map: arccos(tr(RᵀC_xy) / √(tr C_x tr C_y)), R of the fit split, C of "
            "the eval split"
        ),
        "cka": (
            "of a pair: linear CKA from products of different document blocks, hence without the bias "
            "of noise"
        ),
        "norm_slope": NORMS,
        "norm_r2": NORMS,
    },
    scope="pairs",
    figures=("figure",),
    limits=(
        "The spectral part is what no rotation or reflection can remove: it can show that an isometry is "
        "impossible. A small one does not show an isometry, because unrelated members of one spectrum have "
        "none.",
        "The relational part is how tokens fail to correspond after the best orthogonal map; noise raises it too.",
        "An angle of 0° is a rotated copy, 90° nothing in common. " + PAIRS_SHARE_SEEDS,
    ),
)
