"""Does an SAE fire on another member as on its own?"""

from polymorph.evidence.columns import SAE_COLUMNS
from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Does an SAE fire on another member as on its own?",
    place=210,
    columns=SAE_COLUMNS,
    needs=frozenset(["SAEs"]),
    lacking="an SAE of a member at its checkpoint (python train.py stage=sae)",
    figures=("figure",),
)
