"""Does the SAE of one member explain another?"""

from polymorph.evidence.columns import SAE_COLUMNS
from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Does the SAE of one member explain another?",
    place=190,
    columns=SAE_COLUMNS,
    needs=frozenset(["SAEs"]),
    lacking="an SAE of a member at its checkpoint (python train.py stage=sae)",
    scope="pairs",
    figures=("figure", "sae_splicing"),
)
