"""Are the members related at all?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Are the members related at all?",
    place=30,
    metrics={
        "rv_coefficient": "of a pair: ‖C_xy‖²/(‖C_xx‖‖C_yy‖)",
        "p_value": "of a pair, or all: the share of document permutations that reach `rv_coefficient`",
    },
    columns={"statistic": pl.String},
    figures=("figure",),
    limits=(
        "It can show that members have something to do with one another beyond what the position in a "
        "document explains. It says nothing of how: neither that a rotation relates them, nor how well.",
        "p is one-sided, for all members together, and here not adjusted for the number of sites (verdicts "
        "adjust it); below 0.05 counts as shown. Its least value is set by the number of permutations.",
        "n is the number of seeds, not of pairs: pairs share seeds.",
    ),
)
