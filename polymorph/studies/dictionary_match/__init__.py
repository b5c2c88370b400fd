"""Do the SAEs of two members have the same features?"""

import polars as pl

from polymorph.studies.study import Study

BEST = (
    "of two SAEs, directed: best cosine of a feature with one of the other SAE: its mean, and the "
    "share above 0.5"
)
HUNGARIAN = "of two SAEs: the same one to one, by the best assignment; one row a pair"

STUDY = Study(
    package=__name__,
    question="Do the SAEs of two members have the same features?",
    place=200,
    metrics={
        "match_mean_max": BEST,
        "match_share": BEST,
        "match_hungarian": HUNGARIAN,
        "match_hungarian_share": HUNGARIAN,
        "comparisons": "of an arrangement: how many comparisons there were, 0 where no SAE was trained",
        "live_features": "of an SAE: features that fire on the eval tokens",
    },
    columns={"sae": pl.String, "arrangement": pl.String},
    needs=frozenset(["SAEs"]),
    lacking="SAEs of two members, or two of one, at these checkpoints (python train.py stage=sae)",
    figures=("figure",),
    limits=(
        "It can show how many decoder directions of one SAE have a near one in the other, through R fitted "
        "on activations. Directions may match where encoders do not: look at firing for what features do.",
        "The ceiling is two SAEs of one member. Matches of SAEs that share an initialisation seed can be an "
        "artefact: what SAEs of unrelated noise with the same seed match (unrelated) has no feature in "
        "common.",
        "Random directions are chance. R turns covariances onto one another too, so a match through R is "
        "held against unrelated SAEs through R. Pairs share seeds and SAEs; shares have no interval.",
    ),
)
