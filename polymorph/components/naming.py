"""The components of a model by name, found from its hook points: heads, MLPs, and whole blocks.

A component's output is what it adds to the residual stream. A head is hooked where its outputs are still apart
(`hook_z`), which is the same to a replacement as its part of the sum, because what follows is linear.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from polymorph.errors import RequestError
from polymorph.models.architecture import HookedModel

Kind = Literal["head", "attention", "mlp", "block", "stream"]
PARTS: tuple[Kind, ...] = ("head", "attention", "mlp")
"""What a block is made of; the two others are about whole blocks."""
HEADS, ATTENTION, MLP = "attn.hook_z", "hook_attn_out", "hook_mlp_out"
PRE, POST = "hook_resid_pre", "hook_resid_post"


class _Named(Protocol):
    @property
    def hook_dict(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Component:
    """A part of a model whose output can be replaced by its mean.

    A `block` is what a block adds to the stream, so that the stream before it goes on; a `stream` is all that
    leaves a block (what the paper calls ablating a block), so that nothing of what came before is left.
    """

    name: str
    kind: Kind
    layer: int
    point: str
    head: int | None = None
    before: str | None = None
    """Of a block: where the stream is to which it adds."""


@dataclass(frozen=True)
class Points:
    """The hook points of one layer at which components are found; None where a model has none."""

    layer: int
    heads: str | None
    attention: str | None
    mlp: str | None
    before: str | None
    after: str | None

    @property
    def all(self) -> list[str]:
        named = (self.heads, self.attention, self.mlp, self.before, self.after)
        return [point for point in named if point is not None]


def points_of(model: HookedModel) -> list[Points]:
    """Layer by layer; `RequestError` for a model that has nothing of the kind, with the hook points that it has."""
    there = set(cast(_Named, model).hook_dict)
    numbers = {int(found[1]) for name in there if (found := re.match(r"blocks\.(\d{1,6})\.", name))}
    layers = [_points(layer, there) for layer in sorted(numbers)]
    if not any(layer.heads or layer.attention or layer.mlp or layer.after for layer in layers):
        raise RequestError(
            f"no component was found: none of blocks.L.{HEADS}, .{ATTENTION}, .{MLP} and .{POST}; "
            f"the hook points are {', '.join(sorted(there)[:20]) or 'none'}"
        )
    return layers


def _points(layer: int, there: set[str]) -> Points:
    def known(name: str) -> str | None:
        return name if name in there else None

    block = f"blocks.{layer}"
    return Points(
        layer,
        known(f"{block}.{HEADS}"),
        known(f"{block}.{ATTENTION}"),
        known(f"{block}.{MLP}"),
        known(f"blocks.{layer - 1}.{POST}" if layer else f"{block}.{PRE}"),
        known(f"{block}.{POST}"),
    )


def components_of(layers: Sequence[Points], heads: Mapping[str, int]) -> list[Component]:
    """All components in the order of the computation; `heads` says how many a hook point has, where they are apart.

    Attention is one component where they are not.
    """
    found: list[Component] = []
    for at in layers:
        name = f"L{at.layer}"
        if at.heads is not None and at.heads in heads:
            count = heads[at.heads]
            found += [Component(f"{name}H{h}", "head", at.layer, at.heads, h) for h in range(count)]
        elif at.attention is not None:
            found.append(Component(f"{name}ATTN", "attention", at.layer, at.attention))
        if at.mlp is not None:
            found.append(Component(f"{name}MLP", "mlp", at.layer, at.mlp))
        if at.after is not None:
            if at.before is not None:
                found.append(Component(name, "block", at.layer, at.after, before=at.before))
            found.append(Component(name, "stream", at.layer, at.after))
    return found
