"""Does the SAE of one checkpoint explain another?"""

from polymorph.evidence.columns import SAE_COLUMNS
from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Does the SAE of one checkpoint explain another?",
    place=220,
    columns=SAE_COLUMNS,
    needs=frozenset(["SAEs", "checkpoints"]),
    lacking="SAEs of one member at two of its checkpoints (python train.py stage=sae)",
    scope="all",
    figures=("figure",),
)
