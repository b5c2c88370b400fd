"""How do members turn while they train?"""

from polymorph.studies.ladder import STUDY as LADDER
from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="How do members turn while they train?",
    place=130,
    columns=LADDER.columns,
    needs=frozenset(["checkpoints"]),
    lacking="a member with at least two checkpoints",
    scope="all",
    figures=("figure",),
)
