"""Is the right layer the best one? R² from every site of one member to every site of another.

The control of the wrong layer: if another site of the source predicts the target as well, then what is shared
does not belong to the site. Fitted on half of the documents kept, scored on the other half.
"""

from collections.abc import Iterator
from typing import Any

import torch

from polymorph.alignment.accumulator import MomentAccumulator
from polymorph.alignment.families import FITS
from polymorph.alignment.fit import r2_from_moments
from polymorph.alignment.moments import PairMoments
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row

STUDY = "layers"
MAPS = ("orthogonal", "affine")


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """`site` is the target's; a row whose `source_site` is another one is a control."""
    for first in evidence.sites:
        for second in evidence.sites:
            fit, score = (_moments(evidence, first, second, half) for half in (0, 1))
            yield from _rows(evidence, first, second, fit, score, backward=False)
            yield from _rows(evidence, second, first, fit.swap(), score.swap(), backward=True)


def _rows(
    evidence: Evidence, source: str, target: str, fit: PairMoments, score: PairMoments, *, backward: bool
) -> Iterator[Row]:
    about: dict[str, Any] = {
        "backward": backward,
        "role": "estimate" if source == target else "control",
        "n_tokens": int(score.n.min()),
        "extra": {"source_site": source},
    }
    for name in MAPS:
        values = r2_from_moments(FITS[name](fit), score)
        yield from evidence.pair_rows(STUDY, target, "fit", "r2", values, map=name, **about)


def _moments(evidence: Evidence, first: str, second: str, half: int) -> PairMoments:
    """Moments [pairs] of the first member's tokens at one site with the second's at another."""
    kept = evidence.kept(first)
    tokens = torch.nonzero(kept.document % 2 == half).squeeze(1)
    moments = MomentAccumulator(evidence.index, blocks=1)
    right = evidence.kept(second).values[second][:, tokens]
    moments.update(kept.values[first][:, tokens], kept.document[tokens], right=right)
    return moments.total()
