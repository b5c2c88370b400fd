"""Can the upper part of one member read the lower part of another through a map?"""

import polars as pl

from polymorph.studies.definitions import PAIRS_SHARE_SEEDS
from polymorph.studies.study import Study

LOSS_AND_ACCURACY_STITCHED = "of a stitched model; loss in nats a token"
PARENTS_LOSS = "of a stitched model: its loss less that of either parent by itself"
PARENTS_KL = "of a stitched model: mean KL of the parent's answers from those of the stitched model"

STUDY = Study(
    package=__name__,
    question="Can the upper part of one member read the lower part of another through a map?",
    place=150,
    metrics={
        "loss": LOSS_AND_ACCURACY_STITCHED,
        "accuracy": LOSS_AND_ACCURACY_STITCHED,
        "delta_loss_source": PARENTS_LOSS,
        "delta_loss_target": PARENTS_LOSS,
        "kl_source": PARENTS_KL,
        "kl_target": PARENTS_KL,
        "loss_recovered": (
            "`constant_answer`: (H − loss) / (H − loss of the target), H the entropy of the labels: 1 "
            "is the target, below 0 is worse than the best answer that is always the same; "
            "`predict_mean`: the same with H the loss of the target with its mean of the fit split in "
            "place of the site. That model may be far worse than a constant answer, and then nearly "
            "everything recovers much of it"
        ),
    },
    columns={"head": pl.String, "control": pl.String},
    needs=frozenset(["models"]),
    scope="pairs",
    figures=("figure",),
    limits=(
        "It can show that what the upper part needs is there in the other member, and within reach of that "
        "family of maps. It does not show that the members are rotated copies: an affine map may carry over "
        "much that an isometry cannot.",
        "Where a site holds little more than the tokens themselves, an affine map of an untrained lower "
        "part does as well: only what that control does not reach is a computation that members share.",
        "The ceiling is the target's own previous checkpoint under its last. " + PAIRS_SHARE_SEEDS,
    ),
)
