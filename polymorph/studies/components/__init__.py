"""Do the same parts matter in every member, and can that be predicted?"""

import polars as pl

from polymorph.studies.components.options import Options
from polymorph.studies.definitions import PAIRS_SHARE_SEEDS
from polymorph.studies.study import Study

IG = (
    "of a component: how many midpoints `integrated_gradients` took; |integrated − measured| in "
    "shares of the same scale"
)

STUDY = Study(
    package=__name__,
    question="Do the same parts matter in every member, and can that be predicted?",
    place=170,
    metrics={
        "loss": "of a member (`target`), by `head` and summed (`all`): nats a token, as it is",
        "ablation_effect": "of a component, by `head` and summed: loss without it − loss",
        "attribution_patching": "of a component: Σ slope at the clean run · (mean − value), nats a token",
        "integrated_gradients": (
            "of a component: the same, the slope averaged over midpoints of the straight way to the "
            "mean, 16, 32, … 1,024 of them, until it is within 1 % of the larger of the effect and a "
            "tenth of the largest effect; `paper`: 32 points from the clean end on, t = 0, 1/32, …, "
            "31/32"
        ),
        "ig_points": IG,
        "ig_error": IG,
        "effect_correlation": (
            "of a pair, or a member with itself (`ceiling`): over heads and MLPs (`kind` = `parts`), "
            "`block`s or `stream`s: `attribution` of the source (what it predicts, or its own "
            "`ablation` effects) with the target's ablation effects, by `statistic`: `pearson` (bar "
            "C), `spearman`, `concordance` (share of pairs in one order), and `leave_one_out`: "
            "Pearson's r without `component`"
        ),
        "p_value": "of the same, or of a ranking: share of the null that reaches it; missing below 20 assignments",
        "cumulative_effect": (
            "of a target without the first `removed` components of a ranking: loss − loss as it is, "
            "by `order`: the integrated gradients of the `source`, its `own` single effects "
            "(ceiling), or `random` (null, with the range of 95 % of 24 rankings)"
        ),
        "cumulative_correlation": (
            "of a ranking: Pearson's r, over k, of the k predictions added up with the effect of the "
            "k together: bar Pr"
        ),
        "ranking_gain": (
            "of a ranking: (a − a_random)/(a_own − a_random), a the mean effect over k < n: 1 for the "
            "target's own ranking, hence within a member, 0 for random ones"
        ),
        "curve_distance": (
            "of a ranking: mean distance of its effects from those of the own ranking, in shares of "
            "the effect without all"
        ),
    },
    columns={
        "kind": pl.String,
        "component": pl.String,
        "head": pl.String,
        "attribution": pl.String,
        "assignment": pl.String,
        "statistic": pl.String,
        "order": pl.String,
        "removed": pl.Int64,
    },
    options=Options,
    needs=frozenset(["models"]),
    scope="all",
    figures=("figure",),
    limits=(
        "It can show whether another member's predictions say which parts matter here, beyond what any "
        "order of the heads within layers would give. n is a handful of components, and r may rest on one "
        "of them.",
        "A member's own integrated gradients are complete, so their r of 1 says nothing of the member. "
        "Nothing here depends on the basis of the stream: a rotated copy has r = 1 unaligned, so it is no "
        "evidence for or against a rotation.",
        "Heads have no names that members share; the best match is held against matches of heads at random. "
        + PAIRS_SHARE_SEEDS,
    ),
)
