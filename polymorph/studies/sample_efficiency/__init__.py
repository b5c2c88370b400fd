"""How many tokens does a fit need?"""

import polars as pl

from polymorph.studies.definitions import R2
from polymorph.studies.study import Study

LIMIT = "of a map: R² extrapolated to infinitely many fit tokens, and where R² comes within 0.01 of it"

STUDY = Study(
    package=__name__,
    question="How many tokens does a fit need?",
    place=120,
    metrics={
        "r2": R2,
        "r2_limit": LIMIT,
        "tokens_to_limit": LIMIT,
    },
    columns={"fit_tokens": pl.Int64},
    scope="pairs",
    figures=("figure",),
    limits=(
        "It can show whether the fits of the other studies had tokens enough: from there on R² stays within "
        "0.01 of its limit. A map that never got there is short of tokens, and its R² is too low.",
        "The limit is an extrapolation from two points of one curve, and no ceiling: what a better family "
        "of maps would reach is not in it.",
        "Tokens of one document are not independent, so other documents may need more. No intervals; pairs "
        "share seeds.",
    ),
)
