"""Is R like a uniformly random rotation?"""

import polars as pl

from polymorph.studies.definitions import DETERMINED_DIMENSION, DIMENSION
from polymorph.studies.study import Study

HAAR_TEST = (
    "of R: a `statistic` of the independent maps, its distance from the law's mean in standard "
    "deviations, and its p-value"
)

STUDY = Study(
    package=__name__,
    question="Is R like a uniformly random rotation?",
    place=90,
    metrics={
        "statistic": HAAR_TEST,
        "z": HAAR_TEST,
        "p_value": HAAR_TEST,
        "paper_ks_p": "of R: the paper's Kolmogorov–Smirnov p-value; uncalibrated, its size is 0",
        "permutation_distance": (
            "`paper`, of R of a pair: ‖R − nearest permutation‖_F, without signs; "
            "`paper_undetermined` where r < d: it is then a number of the fit, not of the members"
        ),
        "determined_dimension": DETERMINED_DIMENSION,
        "dimension": DIMENSION,
    },
    columns={"statistic": pl.String, "law": pl.String},
    figures=("figure",),
    limits=(
        "Not distinguished from a uniformly random rotation (Haar) is not shown to be one: it is the "
        "trivial hypothesis for members of independent initialisation, and what unrelated members have too. "
        "The finding is a departure from it.",
        "Only the registered pair of statistics decides; p is here not adjusted for sites (verdicts adjust "
        "it). The paper's Kolmogorov-Smirnov p is not calibrated, has size 0, and is near 1 for almost any "
        "matrix.",
        "Where the data determine fewer dimensions than there are, the test is refused: the rest of R would "
        "look random by construction.",
    ),
)
