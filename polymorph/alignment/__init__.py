"""How members differ: maps, their fits and what they are worth; pure functions of tensors and moments."""

from polymorph.alignment.families import FITS, fit_ladder
from polymorph.alignment.fit import fit_orthogonal, fit_rotation, r2_from_moments
from polymorph.alignment.maps import Map

__all__ = ["FITS", "Map", "fit_ladder", "fit_orthogonal", "fit_rotation", "r2_from_moments"]
