"""How does a member turn while it trains? The ladder between its own checkpoints.

Between members at equal steps the study `ladder` has the same rows. Read on a part of the probe, because a
member with k checkpoints has k(k − 1)/2 pairs of them.
"""

from collections.abc import Iterator, Sequence

from polymorph.alignment.collect import collect
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row
from polymorph.studies.ladder import rows as ladder

STUDY = "trajectory"
CHECKPOINTS = 8
"""Of each member, at most: the first, the last, and those between them evenly spaced in their order."""


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Rows of the ladder for every two checkpoints of a member, from the earlier to the later, as ceilings."""
    for history in evidence.histories:
        steps = spread(history.steps, CHECKPOINTS)
        if len(steps) < 2:
            continue
        index = [(i, j) for i in range(len(steps)) for j in range(i + 1, len(steps))]
        labels = [PairLabel.between(history.seed, history.seed, steps[i], steps[j]) for i, j in index]
        source = history.source(steps)
        moments = collect(source, index, evidence.blocks, evidence.seed, controls=False)
        documents = {f"{split}_documents": count for split, count in source.documents.items()}
        for row in ladder.ladder_rows(moments.result(), labels, evidence.cohort, **documents):
            yield row.of_study(STUDY)


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most `most` of the steps, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    places = {round(i * (len(steps) - 1) / (most - 1)) for i in range(most)}
    return [steps[place] for place in sorted(places)]
