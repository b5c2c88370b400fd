"""Do the members compute the same function?"""

import polars as pl

from polymorph.studies.definitions import PAIRS_SHARE_SEEDS
from polymorph.studies.study import Study

LOSS_AND_ACCURACY = (
    "of a member (`target`): mean cross-entropy in nats a token; share of tokens whose most probable "
    "class is the label"
)

STUDY = Study(
    package=__name__,
    question="Do the members compute the same function?",
    place=10,
    metrics={
        "loss": LOSS_AND_ACCURACY,
        "accuracy": LOSS_AND_ACCURACY,
        "kl": "of a directed pair: mean KL(p_source ‖ p_target) in nats a token",
        "relative_kl": (
            "of a directed pair: `kl` / KL(p_source ‖ its own mean over these tokens): 0 for one "
            "function, 1 where the target says no more of the source's answers than the constant "
            "nearest to them"
        ),
        "kl_excess": (
            "of a directed pair: `kl` less the mean ceiling of its two members, paired by documents; "
            "above 0 with its interval, the members differ by more than one member moved between its "
            "last two checkpoints"
        ),
        "agreement": "of a directed pair: share of tokens with the same most probable class",
        "agreement_where_wrong": (
            "of a directed pair: the same, of the tokens on which the source is wrong, which "
            "`n_tokens` counts"
        ),
    },
    columns={
        "distribution": pl.String,
        "head": pl.String,
        "control": pl.String,
    },
    needs=frozenset(["models"]),
    scope="all",
    figures=("figure",),
    limits=(
        "It can show how far the answers of two members differ on held-out inputs of these distributions, "
        "and nothing of how they come to them: equal functions may be computed differently.",
        "A small KL in nats is no sign of one function, because untrained members answer nearly uniformly, "
        "and hence alike. The share of what a constant answer differs by is the number to read: 0 for one "
        "function, 1 for no better than a constant.",
        "The ceiling holds what one member still learned between its last two checkpoints, so it depends on "
        "how far apart those are.",
        PAIRS_SHARE_SEEDS,
    ),
)
