"""Does the SAE of one member explain another?"""

from polymorph.evidence.columns import SAE_COLUMNS
from polymorph.studies.definitions import EXPLAINED_VARIANCE, L0
from polymorph.studies.study import Study

FVU = "of the same: 1 − `explained_variance`, `centred`"
LIVE_FRACTION = "of an SAE: share of features that fire at all on the eval tokens"
SPLICED = (
    "of the target with x̂ in place of its site: CE − CE_clean in nats a token, and (CE_ablated − CE) "
    "/ (CE_ablated − CE_clean), ablated at the mean of the fit split; left out where that costs "
    "nothing"
)

STUDY = Study(
    package=__name__,
    question="Does the SAE of one member explain another?",
    place=190,
    metrics={
        "explained_variance": EXPLAINED_VARIANCE,
        "fvu": FVU,
        "pairing_gain": (
            "of R: [EV(R) − EV(covariance only)] / [EV(own) − EV(covariance only)], `centred`; left "
            "out where the own SAE is not clearly 0.01 above covariance only"
        ),
        "l0": L0,
        "live_fraction": LIVE_FRACTION,
        "delta_ce": SPLICED,
        "loss_recovered": SPLICED,
    },
    columns=SAE_COLUMNS,
    needs=frozenset(["SAEs"]),
    scope="pairs",
    figures=("figure", "sae_splicing"),
    limits=(
        "It can show how well an SAE reconstructs another member through a map there and back. Explained "
        "variance through R measures matching covariance first: a map that has only matched covariances, "
        "and seen no pairs of tokens, may reach most of it too.",
        "What the true pairing adds is the pairing gain: 0 is nothing, 1 all that covariance lacked of the "
        "own SAE. It is left out where there is hardly anything to gain.",
        "That an SAE reconstructs does not show that its features are the other member's: look at "
        "dictionary_match and firing. Pairs share seeds and SAEs.",
    ),
)
