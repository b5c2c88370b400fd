"""What moments must have before a map is fitted to them."""

from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.moments import PairMoments


def require(moments: PairMoments, square: bool = True, full: bool = False) -> None:
    """Refuse moments that cannot bear a fit: d_x ≠ d_y, too few tokens, values that are not finite."""
    d_x, d_y = moments.xy.shape[-2:]
    fewest = int(moments.n.min())
    if square and d_x != d_y:
        raise ValueError(f"this map needs equal dimensions, got {d_x} and {d_y}")
    if fewest < 1 or (full and fewest <= max(d_x, d_y)):
        raise ValueError(f"too few tokens to fit a map: {fewest} tokens in {max(d_x, d_y)} dimensions")
    # aminmax and not isfinite().all(): no tensor of booleans; NaN and infinities reach the ends
    ends = (end for sums in (moments.xx, moments.yy, moments.xy) for end in sums.aminmax())
    if not all(bool(end.isfinite()) for end in ends):
        raise ValueError("the moments have values that are not finite")


def source_spread(moments: PairMoments) -> Float[Tensor, "*batch"]:
    """Σ‖x − mean_x‖², refused where it is no more than rounding."""
    spread = moments.spread_x.sum(-1)
    if not bool((spread > 0).all()):
        raise ValueError("the source has no variance: nothing to fit")
    return spread
