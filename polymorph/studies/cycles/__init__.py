"""Do the maps agree round a cycle?"""

import polars as pl

from polymorph.studies.definitions import DETERMINED_DIMENSION
from polymorph.studies.study import Study

COHERENCE = "of three members; of all: tr(PᵀR_ij R_jk R_ki P)/r on the determined support"
FRAMES_R2 = "of a pair; of a member: R² through the common frame, directly, and from the mean of all others"

STUDY = Study(
    package=__name__,
    question="Do the maps agree round a cycle?",
    place=100,
    metrics={
        "cycle_coherence": COHERENCE,
        "mean_cycle_coherence": COHERENCE,
        "synchronisation_objective": (
            "of all members: share of Σ‖C_ij‖_* that one common frame keeps; not 0 for unrelated members"
        ),
        "synchronised_r2": FRAMES_R2,
        "pairwise_r2": FRAMES_R2,
        "consensus_r2": FRAMES_R2,
        "determined_dimension": DETERMINED_DIMENSION,
    },
    columns={"third": pl.Int64},
    lacking="at least three members and all their pairs (pairs=all)",
    figures=("figure",),
    limits=(
        "It can show that one frame serves all members about as well as a map for each pair. It does not "
        "show that the frame is right: maps that all follow position in the document agree round a cycle "
        "too, which is what the control shows.",
        "Coherence is 1 where the maps round a triangle undo each other, about 0 where they have nothing in "
        "common, and is taken on the determined directions alone.",
        "Triangles share members: they are not independent, and coherence has no interval.",
    ),
)
