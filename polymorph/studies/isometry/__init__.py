"""Is an isometry possible?"""

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Is an isometry possible?",
    place=50,
    scope="pairs",
    figures=("figure",),
)
