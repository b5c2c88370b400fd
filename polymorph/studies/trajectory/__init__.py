"""How do members turn while they train?"""

from polymorph.studies.ladder import STUDY as LADDER
from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="How do members turn while they train?",
    place=130,
    metrics=LADDER.metrics,
    columns=LADDER.columns,
    needs=frozenset(["checkpoints"]),
    scope="all",
    figures=("figure",),
    limits=(
        "It can show how a member differs from its own earlier self. No two members are compared: it stands "
        "beside maps between members as their ceiling, and tells what training changes by itself.",
        "The angle is the mean turn of the determined directions alone: 0° where they stay, 90° where "
        "nothing of them is kept, which is also what unrelated streams have.",
        "How far two checkpoints differ depends on how far apart they were saved. Ranges are over members.",
    ),
)
