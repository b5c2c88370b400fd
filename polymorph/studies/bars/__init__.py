"""Which of the paper's four bars does the cohort pass, and which would a decoy pass too?"""

import polars as pl

from polymorph.studies.study import Study

BAR_P = (
    "bar P, `paper`: largest mean squared difference of a weight after alignment over the full gauge, "
    "as in `weights`; beside it `relative_mse`"
)

STUDY = Study(
    package=__name__,
    question="Which of the paper's four bars does the cohort pass, and which would a decoy pass too?",
    place=180,
    metrics={
        "label_kl": (
            "bar B within a member: −log p of the algorithm's label, mean over positions and heads "
            "(`head` = `mean`); `paper`: KL with 1e-6 of the label spread over the other classes"
        ),
        "kl": "bar B across members: of the source's answers to the target's",
        "mse": BAR_P,
        "relative_mse": BAR_P,
        "effect_correlation": "bar C: of integrated gradients with measured effects",
        "cumulative_correlation": "bar Pr: as in `components`",
        "auc": (
            "of a bar: the chance that it puts a member (or pair) before a decoy, of one kind or of "
            "`all`: ½ if it knows nothing, below ½ if it prefers decoys"
        ),
    },
    columns={
        "bar": pl.String,
        "scope": pl.String,
        "decoy": pl.String,
        "head": pl.String,
        "distribution": pl.String,
    },
    needs=frozenset(["models"]),
    scope="all",
    figures=("figure",),
    limits=(
        "A bar that decoys pass as well says nothing when members pass it. AUC is the chance that it puts a "
        "member before a decoy: ½ if it knows nothing, below ½ if it prefers decoys.",
        "C within a member cannot fail for any network, and neither C nor Pr knows in which basis a stream "
        "is written: they are no evidence for or against a rotation.",
        "The bounds are the paper's. Here a bar counts as passed by a member or pair whose value is; the "
        "claims ask for whole intervals. Pairs share seeds.",
    ),
)
