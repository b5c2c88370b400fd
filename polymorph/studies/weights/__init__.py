"""Are two members one model up to the symmetries of their architecture?"""

import polars as pl

from polymorph.studies.definitions import DETERMINED_DIMENSION
from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Are two members one model up to the symmetries of their architecture?",
    place=140,
    metrics={
        "weight_similarity": (
            "of a pair: the mean cosine that was reached; with `start`, where that start ended: "
            "`identity`, `activations`, `eigenvectors` (of the Grams, which copies share), and the "
            "best, median and worst of 32 Haar draws (those that were behind after 5 rounds are left "
            "there)"
        ),
        "relative_mse": (
            "of a `group` of weights, `max`, `mean`: ‖source − target‖² / ‖target‖² of what only "
            "permutations and R change: tables and unembeddings (classes about their mean) in the "
            "rows that occur in the probe; W_Q W_Kᵀ (`.qk`) and W_V W_O (`.vo`); scaled neurons. 0 "
            "for copies, 1 for a source of zeros, 2 for unrelated weights of one size"
        ),
        "mse": (
            "`paper`, of a tensor, and `max`, bar P: mean squared difference of every tensor, in the "
            "target's gauge inside its heads and neurons. In units of squared weights: untrained "
            "members, which are small, have a lower one than trained members"
        ),
        "interpolated_loss": (
            "of a pair at `fraction`: loss, summed over heads, of (1 − fraction)·source + "
            "fraction·target, on the first 128 eval documents"
        ),
        "loss_barrier": (
            "of a pair: the largest excess of `interpolated_loss` over the straight line between its "
            "ends, at the nine places between them"
        ),
        "r2": (
            "by site, of `gauge`, `stream`, `orthogonal`: as in the ladder, with R from weights, from "
            "the activations of all sites, and from those of this one"
        ),
        "agreement_on_support": (
            "by site, of `gauge`, `stream`: mean of u_iᵀ R v_i over the r determined directions, the "
            "site's own R taking u_i to v_i; the `null` is of a Haar R, ± 2/√(rd)"
        ),
        "determined_dimension": DETERMINED_DIMENSION,
        "logit_difference": "of a copy: the largest of any logit, in float64",
    },
    columns={
        "group": pl.String,
        "start": pl.String,
        "control": pl.String,
        "fraction": pl.Float64,
    },
    needs=frozenset(["models"]),
    lacking="models of an architecture with a table of symmetries (polymorph/models/symmetries.py)",
    scope="all",
    figures=("figure",),
    limits=(
        "It can show that two members are one model, because a copy under a random symmetry is found again. "
        "Weights that stay apart do not quite show that no symmetry relates them: the search ends in a "
        "local maximum.",
        "0 is a copy, 1 a source of zeros, 2 unrelated weights of one size. What members reach has to be "
        "read beside models that have no stream in common (own rotations) and beside untrained ones, both "
        "searched from fewer starts.",
        "Weights may differ where the function and the streams agree, in directions that the inputs never "
        "use. Pairs share seeds; weights have no interval.",
    ),
)
