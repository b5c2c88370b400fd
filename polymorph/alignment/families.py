"""The families of maps: one table, from which the ladder, the figures, the dashboards and the documents take theirs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from polymorph.alignment.fit import identity, orthogonal, rotation, shift, signed_permutation, similarity
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.regression import affine, cross_validated_maps

Fit = Callable[[PairMoments], Map]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of maps.

    `fit` is from total moments; None where blocks are needed, on which a rank is chosen. A family with more
    `freedom` stands later in the ladder; the numbers only order. `isometry`: every weight is orthogonal. `inverse`:
    the way back is the inverse, which for a regression would blow up the directions that the regression shrinks.
    """

    name: str
    fit: Fit | None
    freedom: float
    isometry: bool
    inverse: bool
    colour: str
    """After Okabe and Ito (2008), the same in every figure."""
    note: str

    @property
    def label(self) -> str:
        """The name as it is read."""
        return self.name.replace("_", " ")


def _isometry(name: str, fit: Fit, freedom: float, colour: str, note: str) -> Family:
    return Family(name=name, fit=fit, freedom=freedom, isometry=True, inverse=True, colour=colour, note=note)


def _looser(
    name: str, fit: Fit | None, freedom: float, colour: str, note: str, inverse: bool = False
) -> Family:
    return Family(
        name=name, fit=fit, freedom=freedom, isometry=False, inverse=inverse, colour=colour, note=note
    )


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _isometry("identity", identity, 0.0, "#6b6b6b", "no map at all"),
        _isometry("shift", shift, 1.0, "#e69f00", "the means alone"),
        _isometry("signed_permutation", signed_permutation, 2.0, "#a89a00", "axes permuted and flipped"),
        _isometry("rotation", rotation, 3.0, "#003f66", "det R = +1"),
        _isometry("orthogonal", orthogonal, 4.0, "#0072b2", "rotation or reflection, and shift"),
        _looser("similarity", similarity, 5.0, "#56b4e9", "orthogonal, and one scale", inverse=True),
        _looser("reduced_rank", None, 6.0, "#66b89a", "linear, of low rank"),
        _looser("affine", affine, 7.0, "#009e73", "any linear map"),
    )
}
"""By name. Who asks for all of them reads it when asked, so that one that is added is in all that follows."""
CROSS_VALIDATED = ("reduced_rank", "affine")
"""Those whose rank and ridge the ladder chooses on blocks."""

FITS = MappingProxyType({name: family.fit for name, family in FAMILIES.items() if family.fit is not None})
"""The fits that need the total moments alone, by name, from the smallest family to the largest."""


def ladder() -> list[Family]:
    """All families from the smallest to the largest."""
    return sorted(FAMILIES.values(), key=lambda family: family.freedom)


def rungs() -> list[str]:
    """Their names in that order."""
    return [family.name for family in ladder()]


def in_ladder_order(names: Sequence[str]) -> list[str]:
    """Distinct maps from the smallest family to the largest; unknown ones last, by name."""
    known = rungs()
    return sorted(set(names), key=lambda name: (known.index(name) if name in known else len(known), name))


def fit_ladder(blocks: PairMoments) -> dict[str, Map]:
    """Every rung, fitted to all blocks [blocks *batch] together: one map a pair, by name, in rung order.

    Rank and ridge of `reduced_rank` and `affine` are cross-validated over the blocks. With tokens in a single block
    there is no `reduced_rank`, and `affine` has the tiny ridge.
    """
    moments = blocks.total()
    found = {
        family.name: replace(family.fit(moments), name=family.name)
        for family in ladder()
        if family.fit is not None and family.name not in CROSS_VALIDATED
    }
    found |= cross_validated_maps(blocks, moments)
    return {name: found[name] for name in rungs() if name in found}
