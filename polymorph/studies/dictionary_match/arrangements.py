"""Which SAEs of two members are matched."""

from collections.abc import Iterator
from dataclasses import dataclass

from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Role
from polymorph.saes.trained import Variant


@dataclass(frozen=True)
class Arrangement:
    """Which SAEs of two members are matched, and what that shows."""

    name: str
    source: Variant
    target: Variant
    role: Role
    permuted: bool = False
    """Whether the source reads another document's token at the same position; then only activations are matched."""

    @property
    def within(self) -> bool:
        """Whether both are of one member."""
        return self.target == "again"

    @property
    def mirrored(self) -> bool:
        """Whether the other way round is the same comparison."""
        return self.source == self.target


ARRANGEMENTS = (
    Arrangement("distinct", "distinct", "distinct", "estimate"),
    Arrangement("shared", "shared", "shared", "estimate"),
    Arrangement("again", "distinct", "again", "ceiling"),
    Arrangement("unrelated", "unrelated", "unrelated", "control"),
    Arrangement("shared_to_unrelated", "shared", "unrelated", "control"),
    Arrangement("permuted", "distinct", "distinct", "control", permuted=True),
)


Side = tuple[int, Variant]
"""An SAE of a family: the place of its member in `ends`, and its variant."""


@dataclass(frozen=True)
class Comparison:
    arrangement: Arrangement
    source: Side
    target: Side
    pair: int | None
    """Its place among the pairs; None within one member."""
    backward: bool = False

    @property
    def members(self) -> tuple[int, int]:
        return self.source[0], self.target[0]

    @property
    def ways(self) -> tuple[bool, ...]:
        """Forwards, and backwards (True) where that is not a comparison of its own."""
        return (False, True) if self.arrangement.mirrored else (False,)


def comparisons(evidence: Evidence, site: str, family: str) -> list[Comparison]:
    """All whose SAEs are there, in the order of `ARRANGEMENTS`."""
    there = _sides(evidence, site, family)
    return [
        one
        for arrangement in ARRANGEMENTS
        for one in _all_of(evidence, arrangement)
        if {one.source, one.target} <= there
    ]


def _sides(evidence: Evidence, site: str, family: str) -> set[Side]:
    variants = {variant for one in ARRANGEMENTS for variant in (one.source, one.target)}
    return {
        (place, variant)
        for place, (seed, step) in enumerate(evidence.ends)
        for variant in variants
        if step in evidence.dictionaries.steps(seed, site, family, variant)
    }


def _all_of(evidence: Evidence, arrangement: Arrangement) -> Iterator[Comparison]:
    """Every comparison that the arrangement asks for."""
    source, target = arrangement.source, arrangement.target
    if arrangement.within:
        for place in range(len(evidence.ends)):
            yield Comparison(arrangement, (place, source), (place, target), None)
        return
    for pair, (first, second) in enumerate(evidence.index):
        yield Comparison(arrangement, (first, source), (second, target), pair)
        if not arrangement.mirrored:
            yield Comparison(arrangement, (second, source), (first, target), pair, backward=True)
