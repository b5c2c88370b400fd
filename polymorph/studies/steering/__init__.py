"""Do steering vectors of one member work on another, and through which map?"""

import polars as pl

from polymorph.studies.definitions import PAIRS_SHARE_SEEDS
from polymorph.studies.steering.options import Options
from polymorph.studies.study import Study

STEERED_KL = (
    "mean over documents of the KL divergence of the steered from the unsteered answers, in nats a "
    "token: all heads; the heads that are not the target's, or, of a single head, its other classes "
    "renormalised"
)
CROSS_WITHIN = (
    "`paper`: the paper's ratios: `kl` and `accuracy_loss` over those of the own vector; that of KL "
    "knows no sign"
)
PREDICTORS = (
    "predictors, with R the orthogonal map: share of ‖v‖² in the eigenvectors of (R + Rᵀ)/2 above "
    "0.9; cos(v, Rv); cos(Rv, the target's own). They have no interval"
)
REGRESSION = (
    "of the `predictor`: rank correlation with the efficiency; slope of the log-odds of working, per "
    "standard deviation, with a Gaussian prior of 2.5. Intervals are over contrasts; left out where "
    "nothing varies"
)

STUDY = Study(
    package=__name__,
    question="Do steering vectors of one member work on another, and through which map?",
    place=160,
    metrics={
        "on_target": (
            "τ: mean over documents of the mean change of log Σp(positive classes) − log Σp(negative "
            "classes), with the sign of the contrast, over the tokens at which either condition holds "
            "(`n_tokens`); with prompts, over all"
        ),
        "kl": STEERED_KL,
        "kl_off_target": STEERED_KL,
        "transfer_efficiency": (
            "τ of the source's vector / τ of the target's own; left out where that is not above 0 "
            "over documents"
        ),
        "accuracy_loss": (
            "`paper`: share of right answers lost at the positions that are to change: of the "
            "negative condition (`sign:-1`: the positive one); of all, with prompts"
        ),
        "cross_within_kl": CROSS_WITHIN,
        "cross_within_accuracy": CROSS_WITHIN,
        "regime": "the p-value on which the name in the column `regime` rests",
        "vector_norm": "‖v‖ of a member's own vector; of `systematic`, the one norm that all are given",
        "pinned_share": PREDICTORS,
        "cosine_turned": PREDICTORS,
        "cosine_mapped": PREDICTORS,
        "share_working": "of directions and pairs whose own vector works, those that are *clean* or *partial*",
        "spearman": REGRESSION,
        "logistic_slope": REGRESSION,
    },
    columns={
        "contrast": pl.String,
        "group": pl.String,
        "head": pl.String,
        "dose": pl.Float64,
        "control": pl.String,
        "regime": pl.String,
        "predictor": pl.String,
    },
    options=Options,
    needs=frozenset(["models"]),
    scope="all",
    figures=("figure",),
    limits=(
        "It can show whether these directions, at this site and these doses, do on another member what they "
        "do on their own. It says nothing of directions that were not tried, and nothing where a member's "
        "own vector does not work.",
        "Works is clean or partial, shown above random directions under Holm's correction. Overdriven is a "
        "larger KL for no more effect, which the paper calls inverted; here inverted is a change of sign.",
        PAIRS_SHARE_SEEDS,
    ),
)
