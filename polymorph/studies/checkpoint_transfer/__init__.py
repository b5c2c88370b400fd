"""Does the SAE of one checkpoint explain another?"""

from polymorph.evidence.columns import SAE_COLUMNS
from polymorph.studies.definitions import EXPLAINED_VARIANCE, L0
from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Does the SAE of one checkpoint explain another?",
    place=220,
    metrics={
        "explained_variance": EXPLAINED_VARIANCE,
        "l0": L0,
    },
    columns=SAE_COLUMNS,
    needs=frozenset(["SAEs", "checkpoints"]),
    lacking="SAEs of one member at two of its checkpoints (python train.py stage=sae)",
    scope="all",
    figures=("figure",),
    limits=(
        "It can show how much of an SAE survives further training of its own member, with and without a "
        "rotation. No two members are compared.",
        "R matches covariances too, which alone makes an SAE explain much: only what it explains beyond the "
        "covariance-only control comes from which token goes with which.",
        "How far checkpoints are apart was chosen when they were saved; ranges are over members.",
    ),
)
