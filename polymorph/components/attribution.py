"""What gradients say a component is worth, and how far that is from ablating it.

With x(t) = x + t·(m − x) the way of a component to its mean, and g(t) = ∇L(x(t))·(m − x), the effect of mean ablation
is ∫₀¹ g(t) dt (Sundararajan et al. 2017, arXiv 1703.01365). *Attribution patching* takes g(0), the slope at the clean
run, for all of it; *integrated gradients* are a sum over points of the way. Here they are the midpoint rule, its number
of points doubled until it agrees with what was measured. The paper's convention is 32 points from the clean end on,
t = 0, 1/32, …, 31/32: the rule leaves out the end where the slope is often largest, with an error that falls as 1/32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.components.ablation import Ablations, Documents, Move, Parts, by_document, losses
from polymorph.components.naming import Component
from polymorph.models.architecture import HookedModel
from polymorph.models.functions import Functions

PAPER_POINTS = 32
FEWEST_POINTS, MOST_POINTS = 16, 1024
"""The 16 midpoints are every other one of the paper's 32 points, so the first sum costs nothing beside it."""
TOLERANCE = 0.01
"""Of the larger of a component's effect and a tenth of the largest effect."""

Slopes = Callable[[Sequence[float]], Float[Tensor, "points documents"]]
"""g(t) at points t, of every document."""


@dataclass(frozen=True)
class Attribution:
    """Of one component, in nats summed over the tokens of every document."""

    patching: Float[Tensor, "documents"]
    integrated: Float[Tensor, "documents"]
    paper: Float[Tensor, "documents"]
    points: int
    error: float
    """|integrated − measured| over all documents, in shares of what `TOLERANCE` is held against."""


def slopes_of(
    functions: Functions, member: int, parts: Parts, documents: Documents, component: Component
) -> Slopes:
    """The slopes along the way of one component of a member, all others computed afresh behind it."""

    site = _last_site_before(component)
    starts = [
        functions.stream(member, chunk, site) for chunk in documents.chunks
    ]  # the same all along the way
    begun = [None if start is None else (site, start) for start in starts]

    def slopes(points: Sequence[float]) -> Tensor:
        model = functions.models[member]
        return torch.stack([_slope(model, begun, parts, documents, component, t) for t in points])

    return slopes


def _last_site_before(component: Component) -> str:
    """The last site of the stream that neither a component nor what it is measured against comes before."""
    layer = component.layer
    if component.kind == "mlp":
        return f"blocks.{layer}.hook_resid_mid"
    return component.before or (f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre")


def _slope(
    model: HookedModel,
    begun: Sequence[tuple[str, Tensor] | None],
    parts: Parts,
    documents: Documents,
    component: Component,
    t: float,
) -> Float[Tensor, "documents"]:
    found = torch.zeros(len(documents.tokens), dtype=torch.float64)
    for chunk, start in zip(documents.chunks, begun, strict=True):
        move = Move(parts, [component], t, leaves=True)
        with torch.enable_grad():
            each = losses(model, chunk, move.hooks(), start)
            total = torch.stack([own.sum() for own in each.values()]).sum()
            (gradient,) = torch.autograd.grad(total, move.leaf[component.point])
        along = (gradient * move.way[component.point])[chunk.kept].flatten(1).sum(1)
        found += by_document(along, chunk, len(documents.tokens))
    return found


def midpoints(n: int) -> list[float]:
    """(j + ½)/n."""
    return [(2 * j + 1) / (2 * n) for j in range(n)]


def attributed(
    slopes: Slopes, measured: Float[Tensor, "documents"], largest: float, most: int = MOST_POINTS
) -> Attribution:
    """Integrated gradients with as many points as it takes; `largest` is the largest effect of all components.

    At `most` points the sum is taken as it is, and `error` says how far off it is.
    """
    paper = slopes([j / PAPER_POINTS for j in range(PAPER_POINTS)])
    effect = float(measured.sum())
    scale = max(abs(effect), largest / 10)
    points, integrated = FEWEST_POINTS, paper[1::2].mean(0)
    while (error := _error(float(integrated.sum()), effect, scale)) > TOLERANCE and points < most:
        points *= 2
        integrated = slopes(midpoints(points)).mean(0)
    return Attribution(paper[0], integrated, paper.mean(0), points, error)


def _error(found: float, effect: float, scale: float) -> float:
    """0 where nothing has an effect."""
    return abs(found - effect) / scale if scale > 0 else abs(found - effect)


def attributions(ablations: Ablations, components: Sequence[Component]) -> list[Attribution]:
    """Of components of one family, the largest of which is the largest there is."""
    measured = [ablations.effect([component]) for component in components]
    largest = max(abs(float(effect.sum())) for effect in measured)
    return [
        attributed(_slopes(ablations, component), effect, largest)
        for component, effect in zip(components, measured, strict=True)
    ]


def integrated_roughly(
    ablations: Ablations, components: Sequence[Component]
) -> Float[Tensor, "component documents"]:
    """Integrated gradients at the fewest midpoints, whatever their error."""
    points = midpoints(FEWEST_POINTS)
    return torch.stack([_slopes(ablations, component)(points).mean(0) for component in components])


def _slopes(ablations: Ablations, component: Component) -> Slopes:
    of = ablations.functions, ablations.member, ablations.parts, ablations.documents
    return slopes_of(*of, component)


def cost(ablations: Ablations, components: Sequence[Component]) -> float:
    """Floating-point operations of the fewest points: six for every parameter, token, point and component."""
    parameters = sum(p.numel() for p in ablations.functions.models[ablations.member].parameters())  # type: ignore[attr-defined]
    return 6.0 * parameters * ablations.documents.n_tokens * PAPER_POINTS * len(components)
