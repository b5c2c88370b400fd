"""What a freer family of maps gains: differences of R² between rungs, on the same eval tokens."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.fit import r2_from_moments
from polymorph.alignment.jackknife import jackknife_interval
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.support import filled

GAPS = {
    "orthogonality_gap": ("affine", "orthogonal"),
    "similarity_gap": ("affine", "similarity"),
    "scale_gap": ("similarity", "orthogonal"),
}
"""Metric → the freer map and the tighter one."""
Scored = tuple[Float[Tensor, "*pairs"], tuple[Float[Tensor, "*pairs"], Float[Tensor, "*pairs"]] | None]


class Scores:
    """R² of maps [pairs] on eval moments [blocks, pairs], and of all that follows from them, with intervals.

    Intervals are those of a delete-one-block jackknife with the maps held fixed; None with one block.
    """

    def __init__(self, blocks: PairMoments) -> None:
        self.whole = blocks.total()
        held = filled(blocks)
        self.parts = held.leave_one_out() if held.n.shape[0] > 1 else None

    def r2(self, fitted: Map) -> Scored:
        """Of one map."""
        return self._bounded(*self._both(fitted))

    def gaps(self, maps: Mapping[str, Map]) -> dict[str, Scored]:
        """Every one of `GAPS`: R² of the freer map less that of the tighter one, pair by pair."""
        both = {name: self._both(maps[name]) for pair in GAPS.values() for name in pair}
        found = {}
        for metric, (freer, tighter) in GAPS.items():
            (value, parts), (less, less_parts) = both[freer], both[tighter]
            rest = None if parts is None or less_parts is None else parts - less_parts
            found[metric] = self._bounded(value - less, rest)
        return found

    def share(self, fitted: Map, floor: Map) -> Scored:
        """(R² − R² of the floor) / (1 − R² of the floor): 1 for a rotated copy, 0 for what the floor reaches.

        The ceiling is 1, what a member reaches with itself on new documents. A rotated copy of a share of the
        variance beside something unrelated has that share, because the floor of an orthogonal map is −1. The
        floor is what its map reaches on eval tokens permuted too, in the mean over all permutations: scored on
        the true pairs a random map is off by about the share / √d.
        """
        (value, parts), (less, less_parts) = self._both(fitted), self._both(floor, _unpaired)
        rest = None if parts is None or less_parts is None else (parts - less_parts) / (1 - less_parts)
        return self._bounded((value - less) / (1 - less), rest)

    def _both(
        self, fitted: Map, of: Callable[[PairMoments], PairMoments] = lambda moments: moments
    ) -> tuple[Tensor, Tensor | None]:
        parts = None if self.parts is None else r2_from_moments(fitted, of(self.parts))
        return r2_from_moments(fitted, of(self.whole)), parts

    @staticmethod
    def _bounded(value: Tensor, parts: Tensor | None) -> Scored:
        return value, None if parts is None else jackknife_interval(value, parts)


def _unpaired(moments: PairMoments) -> PairMoments:
    """The moments in the mean over all permutations of one side's tokens."""
    return replace(moments, xy=torch.zeros_like(moments.xy))
