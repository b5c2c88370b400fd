"""What a member loses without some of its components, each held at its mean over the fit split.

A component x is moved to x + t·(m − x) at every position, with m its mean over the tokens kept: t = 1 is mean
ablation, and between lies the path along which gradients are integrated. Losses are cross-entropies in nats, summed
over the tokens kept of every document: a number of a cohort is made of them with blocks of whole documents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from polymorph.components.naming import PARTS, Component, components_of, points_of
from polymorph.models.activations import function_keywords
from polymorph.models.architecture import HookedModel
from polymorph.models.functions import Functions, Hook
from polymorph.tasks.task import IGNORED, Chunk

ByHead = dict[str, Float[Tensor, "documents"]]


@dataclass(frozen=True)
class Parts:
    """The components of one member, and the means [...] that stand in for values [row pos ...] at its hook points."""

    components: Sequence[Component]
    means: Mapping[str, Tensor]

    def of(self, *kinds: str) -> list[Component]:
        return [component for component in self.components if component.kind in kinds]


@dataclass(frozen=True)
class Documents:
    """Some documents of the eval split, and how many tokens each has."""

    chunks: Sequence[Chunk]
    tokens: Float[Tensor, "documents"]

    @property
    def n_tokens(self) -> int:
        return int(self.tokens.sum())


def parts_of(functions: Functions, member: int) -> Parts:
    """The components of a member with their means over the tokens of the fit split, in one pass over it."""
    layers = points_of(functions.models[member])
    read = dict.fromkeys(point for layer in layers for point in layer.all)
    sums: dict[str, Tensor] = {}
    tokens, apart = 0, 2

    def reading(point: str, chunk: Chunk) -> Hook:
        def hook_function(values: Tensor, hook: Any) -> None:
            added = values[chunk.kept].double().sum(0)
            sums[point] = sums[point] + added if point in sums else added

        return point, hook_function

    for chunk in functions.inputs("fit"):
        functions.hooked_logits(member, chunk, [reading(point, chunk) for point in read])
        tokens += int(chunk.kept.sum())
    heads = {at.heads: len(sums[at.heads]) for at in layers if at.heads and sums[at.heads].ndim == apart}
    return Parts(components_of(layers, heads), {point: total / tokens for point, total in sums.items()})


def component_names(functions: Functions, member: int) -> list[str]:
    """Of everything that can be ablated, from few inputs."""
    few = replace(functions, probe=replace(functions.probe, fit=min(functions.probe.fit, 8)))
    return list(dict.fromkeys(component.name for component in parts_of(few, member).components))


def documents_of(functions: Functions, tokens: int, least: int) -> Documents:
    """The first documents of the eval split that hold at most so many tokens together, and `least` in any case."""
    fewer = functions.first(functions.probe.eval, tokens, least)
    chunks = list(fewer.inputs("eval"))
    counts = torch.zeros(fewer.probe.eval, dtype=torch.float64)
    for chunk in chunks:
        counts += torch.bincount(chunk.document.cpu(), minlength=fewer.probe.eval).double()
    return Documents(chunks, counts)


@dataclass
class Move:
    """Hooks that move components of one member by a share of the way to their means.

    With `leaves`, the moved values are leaves of a graph of their own, so that nothing before them is
    differentiated; they and the ways to the means are kept.
    """

    parts: Parts
    components: Sequence[Component]
    share: float = 1.0
    leaves: bool = False
    leaf: dict[str, Tensor] = field(default_factory=dict)
    way: dict[str, Tensor] = field(default_factory=dict)
    _before: dict[str, Tensor] = field(default_factory=dict)

    def hooks(self) -> list[Hook]:
        """In the order of the computation; a block's contribution is known once the stream before it is."""
        befores = dict.fromkeys(c.before for c in self.components if c.before is not None)
        reading: list[Hook] = [(point, self._keeping(point)) for point in befores]
        points = dict.fromkeys(component.point for component in self.components)
        return reading + [(point, self._moving(point)) for point in points]

    def _keeping(self, point: str) -> Callable[..., None]:
        def hook_function(values: Tensor, hook: Any) -> None:
            self._before[point] = values

        return hook_function

    def _moving(self, point: str) -> Callable[..., Tensor]:
        here = [component for component in self.components if component.point == point]

        def hook_function(values: Tensor, hook: Any) -> Tensor:
            way = sum((self._way(component, values) for component in here), torch.zeros_like(values))
            moved = values + self.share * way
            if self.leaves:
                moved = moved.detach().requires_grad_(True)
                self.leaf[point], self.way[point] = moved, way.detach()
            return moved

        return hook_function

    def _way(self, component: Component, values: Tensor) -> Tensor:
        mean = self.parts.means[component.point].to(values)
        if component.head is not None:
            way = torch.zeros_like(values)
            way[..., component.head, :] = mean[component.head] - values[..., component.head, :]
            return way
        if component.kind == "block":
            assert component.before is not None
            before = self._before[component.before]
            return (mean - self.parts.means[component.before].to(values)) - (values - before)
        return mean - values


def losses(
    model: HookedModel, chunk: Chunk, hooks: Sequence[Hook], start: tuple[str, Tensor] | None = None
) -> dict[str, Float[Tensor, "n"]]:
    """Cross-entropy by head of every token kept, 0 where it has no label; differentiable where that is on.

    `start` is a site of the stream before all hooks, and the stream there, where that is there from before.
    """
    keywords = {**function_keywords(model, chunk), **({} if start is None else {"start": start})}
    by_head = model.run_with_hooks(*chunk.arguments, fwd_hooks=list(hooks), **keywords)
    return {
        head: F.cross_entropy(
            own[chunk.kept].float(), chunk.labels[head][chunk.kept], reduction="none", ignore_index=IGNORED
        )
        for head, own in by_head.items()
    }


@torch.no_grad()
def document_losses(
    functions: Functions, member: int, documents: Documents, move: Callable[[], Sequence[Hook]] | None = None
) -> ByHead:
    """By head, the loss of every document, with hooks that are made anew for every chunk; float64, on the CPU."""
    sums: ByHead = {}
    for chunk in documents.chunks:
        hooks = [] if move is None else move()
        for head, own in losses(functions.models[member], chunk, hooks).items():
            added = by_document(own, chunk, len(documents.tokens))
            sums[head] = sums[head] + added if head in sums else added
    return sums


def by_document(values: Float[Tensor, "n"], chunk: Chunk, documents: int) -> Float[Tensor, "documents"]:
    """Float64 sums over the tokens kept of every document, on the CPU."""
    sums = torch.zeros(documents, dtype=torch.float64)
    return sums.index_add_(0, chunk.document.cpu(), values.detach().double().cpu())


@dataclass
class Ablations:
    """Losses of one member without sets of its components, each set computed once."""

    functions: Functions
    member: int
    parts: Parts
    documents: Documents
    _found: dict[frozenset[Component], ByHead] = field(default_factory=dict)

    def on_fewer(self, tokens: int, least: int) -> "Ablations":
        """The same on the first documents that `documents_of` finds."""
        documents = documents_of(self.functions, tokens, least)
        return Ablations(self.functions, self.member, self.parts, documents)

    def losses(self, components: Sequence[Component] = ()) -> ByHead:
        """By head, of every document; of an empty set, those of the member as it is."""
        key = frozenset(components)
        if key not in self._found:
            move = Move(self.parts, list(key)).hooks if key else None
            self._found[key] = document_losses(self.functions, self.member, self.documents, move)
        return self._found[key]

    def total(self, components: Sequence[Component] = ()) -> Float[Tensor, "documents"]:
        """The sum over heads."""
        return torch.stack([*self.losses(components).values()]).sum(0)

    def effect(self, components: Sequence[Component]) -> Float[Tensor, "documents"]:
        """How much more is lost without them."""
        return self.total(components) - self.total()

    def curve(self, order: Sequence[Component], sizes: Sequence[int]) -> Float[Tensor, "sizes documents"]:
        """The effect without the first so many components, one row a size."""
        return torch.stack([self.effect(order[:size]) for size in sizes])


def ablations_of(functions: Functions, member: int, documents: Documents) -> Ablations:
    """Of a member, with the means of its own fit split."""
    return Ablations(functions, member, parts_of(functions, member), documents)


def kinds_of(components: Sequence[Component]) -> dict[str, list[Component]]:
    """The families within which effects are compared: heads and MLPs, what blocks add, and whole streams."""
    families = {"parts": PARTS, "block": ("block",), "stream": ("stream",)}
    found = {
        name: [component for component in components if component.kind in kinds]
        for name, kinds in families.items()
    }
    return {name: some for name, some in found.items() if some}
