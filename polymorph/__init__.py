"""Are independently trained models the same inside?

The alignment mathematics works on anybody's activations, `[n, d]` tensors on the same tokens:

>>> import torch
>>> from polymorph import explained_variance, fit_orthogonal
>>> x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
>>> rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)).double()).Q
>>> carried = fit_orthogonal(x[:250], x[:250] @ rotation)
>>> round(explained_variance(carried(x[250:]), x[250:] @ rotation), 6)
1.0

`compare` puts them under every study and gives a verdict. A cohort on disk is opened with `Cohort.open(folder)`.
Each name is imported when it is first asked for: `import polymorph` alone loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polymorph.alignment import FITS, Map, fit_orthogonal, fit_rotation, r2_from_moments
    from polymorph.alignment.accumulator import MomentAccumulator, pair_moments
    from polymorph.alignment.moments import PairMoments, explained_variance
    from polymorph.errors import RequestError, RunError
    from polymorph.pipeline.given_activations import compare
    from polymorph.saes.coordinates import raw_sae
    from polymorph.saes.port import port_sae
    from polymorph.store import Cohort

__all__ = [
    "FITS",
    "Cohort",
    "Map",
    "MomentAccumulator",
    "PairMoments",
    "RequestError",
    "RunError",
    "compare",
    "explained_variance",
    "fit_orthogonal",
    "fit_rotation",
    "pair_moments",
    "port_sae",
    "r2_from_moments",
    "raw_sae",
]

_HOMES = {
    "polymorph.alignment": ("FITS", "Map", "fit_orthogonal", "fit_rotation", "r2_from_moments"),
    "polymorph.alignment.accumulator": ("MomentAccumulator", "pair_moments"),
    "polymorph.alignment.moments": ("PairMoments", "explained_variance"),
    "polymorph.errors": ("RequestError", "RunError"),
    "polymorph.pipeline.given_activations": ("compare",),
    "polymorph.saes.coordinates": ("raw_sae",),
    "polymorph.saes.port": ("port_sae",),
    "polymorph.store": ("Cohort",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            globals()[name] = getattr(import_module(home), name)  # asked for once
            return globals()[name]
    raise AttributeError(f"module 'polymorph' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
