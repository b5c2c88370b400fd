"""R² along directions of the target: in which of them a map fails."""

from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments, explained_variance_from_sums


def r2_along(
    fitted: Map, moments: PairMoments, axes: Float[Tensor, "*batch d k"]
) -> Float[Tensor, "*batch k"]:
    """R² of the map in each of k unit directions of the target, on the tokens behind `moments`.

    With the k = d axes of an orthonormal basis, their mean weighted by the target's variances is the R² of the
    map. Directions in which the target has no variance must not be among them.
    """
    W = fitted.weight
    moved = ((moments.mean_x - fitted.mean_in).unsqueeze(-2) @ W).squeeze(-2)
    offset = ((moved + fitted.mean_out - moments.mean_y).unsqueeze(-2) @ axes).squeeze(-2)
    V = W @ axes
    total = (axes * (moments.yy @ axes)).sum(-2)
    about_mean = (V * (moments.xx @ V)).sum(-2) - 2 * (V * (moments.xy @ axes)).sum(-2) + total
    return explained_variance_from_sums(about_mean.clamp(min=0) + moments.n[..., None] * offset**2, total)
