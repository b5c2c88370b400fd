"""What members compute: logits on inputs of their task, with anything done on the way.

Studies of function read this; those of representation read an `ActivationSource`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from polymorph.models.activations import Coordinates, Edit, activations, function_keywords, logits, stream
from polymorph.models.architecture import HookedModel, Weights
from polymorph.models.symmetries import Symmetries
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.task import SPLITS, Chunk, Task

Hook = tuple[str, Callable[..., Any]]
"""A hook point by its TransformerLens name, and what is called with its values there."""


@dataclass(frozen=True)
class Functions:
    """Several members of one architecture on one task, at one checkpoint each."""

    models: Sequence[HookedModel]
    sites: Sequence[str]
    task: Task
    probe: ProbeConfig
    device: torch.device
    coordinates: Coordinates | None = None
    symmetries: Symmetries | None = None
    """Of the architecture; None where there is no table of them."""

    @property
    def distributions(self) -> Sequence[str]:
        """On which members are evaluated while they train; `inputs` takes the probe's splits as well."""
        return self.task.distributions

    def inputs(self, distribution: str, sequences: int | None = None) -> Iterator[Chunk]:
        """Held-out inputs: `fit` or `eval` of the probe, whole, or so many sequences of a distribution.

        Always the same ones in the same chunks.
        """
        if distribution in SPLITS:
            yield from self.task.probe(self.probe, distribution, self.device)
        else:
            if sequences is None:
                raise ValueError(f"say how many sequences of {distribution}: it has no end")
            yield from self.task.held_out(distribution, sequences, self.device)

    def first(self, documents: int, tokens: int | None = None, least: int = 1) -> "Functions":
        """The same on its first eval documents: at most so many, and of those as many as hold so many tokens together.

        At least `least` of those that there are, however long.
        """
        most = min(documents, self.probe.eval)
        some = replace(self, probe=replace(self.probe, eval=most))
        if tokens is None:
            return some
        held = torch.zeros(most, dtype=torch.long)
        for chunk in some.inputs("eval"):
            held += torch.bincount(chunk.document.cpu(), minlength=most)
        within = int((held.cumsum(0) <= tokens).sum())
        return replace(self, probe=replace(self.probe, eval=max(min(least, most), within)))

    def read(self, member: int, chunk: Chunk, sites: Sequence[str]) -> dict[str, Float[Tensor, "n d"]]:
        """The residual stream at sites, on the tokens kept, in the cohort's coordinates."""
        return activations(self.models[member], chunk, sites, self.coordinates)

    def stream(self, member: int, chunk: Chunk, site: str) -> Float[Tensor, "row pos d_model"] | None:
        """From where `logits` can start at a site; None for models that cannot."""
        return stream(self.models[member], chunk, site)

    def logits(
        self,
        member: int,
        chunk: Chunk,
        site: str | None = None,
        edit: Edit | None = None,
        start: Tensor | None = None,
    ) -> dict[str, Float[Tensor, "n classes"]]:
        """By head, on the tokens kept; with `edit` done to the residual stream at `site` on the way.

        `start`, the member's `stream` there, spares computing what is before.
        """
        return logits(self.models[member], chunk, site, edit, self.coordinates, start)

    @torch.no_grad()
    def hooked_logits(
        self, member: int, chunk: Chunk, hooks: Sequence[Hook]
    ) -> Mapping[str, Float[Tensor, "n classes"]]:
        """The same with any hooks; their values have the shape of the chunk's arguments, [row pos …]."""
        model = self.models[member]
        keywords = function_keywords(model, chunk)
        by_head = model.run_with_hooks(*chunk.arguments, fwd_hooks=hooks, **keywords)
        return {head: values[chunk.kept] for head, values in by_head.items()}

    def stitched(
        self, lower: int, upper: int, chunk: Chunk, site: str, there: Edit
    ) -> dict[str, Float[Tensor, "n classes"]]:
        """The lower part of one member up to `site`, a map, the upper part of another."""
        carried = there(self.read(lower, chunk, [site])[site])
        return self.logits(upper, chunk, site, lambda _: carried)

    def weights(self, member: int) -> dict[str, Tensor]:
        """Parameters and buffers of a member under its own names, as they are: not to be changed in place."""
        model = cast(nn.Module, self.models[member])
        return {name: value.detach() for name, value in (*model.named_parameters(), *model.named_buffers())}

    @torch.no_grad()
    def logits_of(self, weights: Weights, chunk: Chunk) -> dict[str, Float[Tensor, "n classes"]]:
        """What a member with these weights in place of its own says, by head, on the tokens kept; in their dtype."""
        model = cast(nn.Module, self.models[0])
        by_head = functional_call(model, dict(weights), chunk.arguments, dict(chunk.keywords))
        return {head: values[chunk.kept] for head, values in by_head.items()}
