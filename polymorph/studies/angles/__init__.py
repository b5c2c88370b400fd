"""By which angles does R turn?"""

import polars as pl

from polymorph.studies.study import Study

STUDY = Study(
    package=__name__,
    question="By which angles does R turn?",
    place=70,
    metrics={
        "eigenvalue_angle": "of R: angles of its eigenvalues in radians, ascending in `index`",
    },
    columns={"index": pl.Int64},
    kinds=frozenset({"planted", "trained"}),
    scope="pairs",
    figures=("figure",),
    last_steps_only=True,
    limits=(
        "It can show that R is far from the identity, or from what a uniformly random rotation has. Angles "
        "that look uniform show next to nothing: permutations and fits between unrelated data have them too.",
        "Where the data determine r < d dimensions, the angles of the rest are those of the fit, not of the members.",
        "The angles of the other direction of a pair are the same, and eigenvalues repel each other: they "
        "are no independent draws, and there are no intervals.",
    ),
)
