"""Does R carry the first principal direction of a member to that of another?"""

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="Does R carry the first principal direction of a member to that of another?",
    place=85,  # on the page between `support` and `haar`
    metrics={
        "cosine": "|cos| of the source's first principal direction, turned by R, with the target's; R of the fit split"
    },
    scope="pairs",
    limits=(
        "One direction of d is looked at. A member whose two largest variances are equal has no first one.",
    ),
)
