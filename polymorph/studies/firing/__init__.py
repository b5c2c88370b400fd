"""Does an SAE fire on another member as on its own?"""

from polymorph.evidence.columns import SAE_COLUMNS
from polymorph.studies.study import Study

CORRELATION = (
    "of an SAE on two members: correlation of each feature on its member's tokens with itself on the "
    "target's mapped ones: its mean, and the share above 0.5; `paper`: of all features, a constant "
    "one being 0; `live`: of those that fire on both sides"
)

STUDY = Study(
    package=__name__,
    question="Does an SAE fire on another member as on its own?",
    place=210,
    metrics={
        "firing_correlation_mean": CORRELATION,
        "firing_correlation_share": CORRELATION,
        "live_fraction": (
            "of an SAE: share of features that fire at all: on the tokens of its `own` member, "
            "`mapped` ones, or `both`"
        ),
    },
    columns=SAE_COLUMNS,
    needs=frozenset(["SAEs"]),
    figures=("figure",),
    limits=(
        "It can show that features of one SAE fire on the same tokens of the other member, once that is "
        "mapped to the SAE's own. One SAE takes part, so no feature has to be found again and no "
        "initialisation is shared.",
        "Features that follow position fire alike on any document: what documents paired at random reach "
        "through R is no evidence of common features.",
        "Only features that fire on both sides count here; the table of the study has all features too, as "
        "in the paper. Pairs share seeds and SAEs; shares have no interval.",
    ),
)
