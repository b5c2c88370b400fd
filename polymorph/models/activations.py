"""Activations of a member on the probe: an iterator over chunks of tokens, never an archive.

The probe is inputs of the task that training and evaluation do not meet; its fit split and its eval split are
different documents. A chunk holds whole documents and no padding.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.models.architecture import HookedModel, mean_free_basis
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.task import IGNORED, SPLITS, Chunk, Split, Task

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

Coordinates = Float[Tensor, "d_model d"]
"""Orthonormal columns: in what coordinates a residual stream is read. None stands for its own axes."""


class _ReadAll(Exception):  # noqa: N818  # a signal, not an error
    """Every site that was asked for has been passed: what comes after need not be computed."""


@torch.no_grad()
def activations(
    model: HookedModel, chunk: Chunk, sites: Sequence[str], coordinates: Coordinates | None = None
) -> dict[str, Float[Tensor, "n d"]]:
    """The residual stream at the sites, on the tokens kept; nothing of the model is changed.

    Nothing behind the last of the sites is computed: an unembedding is most of a small language model's cost.
    """
    found: dict[str, Tensor] = {}

    def read(site: str) -> "Callable[[Tensor, HookPoint], None]":
        def hook_function(values: Tensor, hook: "HookPoint") -> None:
            found[site] = _in(coordinates, values[chunk.kept])
            if len(found) == len(sites):
                raise _ReadAll

        return hook_function

    hooks = [(site, read(site)) for site in sites]
    try:
        model.run_with_hooks(*chunk.arguments, fwd_hooks=hooks, **chunk.keywords)
    except _ReadAll:
        return {site: found[site] for site in sites}
    raise ValueError(f"the model has no {', '.join(site for site in sites if site not in found)}")


def coordinates_of(layer_norm: bool, d_model: int) -> Coordinates | None:
    """All of a stream's own axes, or a basis of what LayerNorm leaves of it: then all laws use d_model − 1."""
    return mean_free_basis(d_model) if layer_norm else None


def dimensions(layer_norm: bool, d_model: int) -> int:
    """How many coordinates `coordinates_of` reads a stream in."""
    return d_model - layer_norm


def _in(coordinates: Coordinates | None, values: Tensor) -> Tensor:
    return values if coordinates is None else values @ coordinates.to(values)


def function_keywords(model: HookedModel, chunk: Chunk) -> dict[str, Any]:
    """With what a model is called for what it says, which depends smoothly on every value on the way.

    Its activations are read in another way, exactly as ever: a map that the data do not determine in some direction is
    in that direction made of rounding.
    """
    return {**chunk.keywords, **({"flat": True} if getattr(model, "lays_flat", False) else {})}


@torch.no_grad()
def stream(model: HookedModel, chunk: Chunk, site: str) -> Float[Tensor, "row pos d_model"] | None:
    """The stream at a site, PAD included, from which `logits` can start; None for a model that cannot start there."""
    if site not in getattr(model, "starts_at", ()):
        return None
    found: list[Tensor] = []

    def read(values: Tensor, hook: "HookPoint") -> None:
        found.append(values)
        raise _ReadAll

    with contextlib.suppress(_ReadAll):
        model.run_with_hooks(*chunk.arguments, fwd_hooks=[(site, read)], **function_keywords(model, chunk))
    return found[0]


Edit = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]]
"""What is done to the activations of a site on the tokens kept, in the coordinates that they are read in."""


@torch.no_grad()
def logits(
    model: HookedModel,
    chunk: Chunk,
    site: str | None = None,
    edit: Edit | None = None,
    coordinates: Coordinates | None = None,
    start: Tensor | None = None,
) -> dict[str, Float[Tensor, "n classes"]]:
    """By head, on the tokens kept; with `edit` done at `site` on the way.

    What the coordinates leave out of the stream stays as it is. `start` is the `stream` at the site, where that is
    there from before.
    """

    def spliced(values: Tensor, hook: "HookPoint") -> Tensor:
        assert edit is not None
        changed, own = values.clone(), values[chunk.kept]
        if coordinates is None:
            changed[chunk.kept] = edit(own).to(values.dtype)
        else:
            before = _in(coordinates, own)
            changed[chunk.kept] = own + (edit(before).to(own) - before) @ coordinates.to(own).mT
        return changed

    hooks = [] if site is None or edit is None else [(site, spliced)]
    begun = {} if start is None else {"start": (site, start)}
    by_head = model.run_with_hooks(
        *chunk.arguments, fwd_hooks=hooks, **function_keywords(model, chunk), **begun
    )
    return {head: values[chunk.kept] for head, values in by_head.items()}


@torch.no_grad()
def head_losses(
    model: HookedModel,
    chunk: Chunk,
    site: str | None = None,
    edit: Edit | None = None,
    coordinates: Coordinates | None = None,
) -> dict[str, Float[Tensor, " n"]]:
    """Cross-entropy in nats by head, of every token kept; 0 where it has no label. `edit` is done at `site`."""
    by_head = logits(model, chunk, site, edit, coordinates)
    return {
        head: F.cross_entropy(
            own.float(), chunk.labels[head][chunk.kept], reduction="none", ignore_index=IGNORED
        )
        for head, own in by_head.items()
    }


def token_losses(
    model: HookedModel,
    chunk: Chunk,
    site: str | None = None,
    edit: Edit | None = None,
    coordinates: Coordinates | None = None,
) -> Float[Tensor, " n"]:
    """The sum of `head_losses` over heads."""
    return torch.stack(list(head_losses(model, chunk, site, edit, coordinates).values())).sum(0)


@dataclass(frozen=True)
class DocumentLosses:
    """Of every document of a split: the loss summed over its tokens, and how many there are."""

    total: Float[Tensor, " documents"]
    tokens: Int[Tensor, " documents"]


@dataclass(frozen=True)
class Activations:
    """Some tokens of all members: `values` maps a site to [members n d]; a chunk holds whole documents."""

    values: Mapping[str, Float[Tensor, "members n d"]]
    document: Int[Tensor, " n"]
    position: Int[Tensor, " n"]


@runtime_checkable
class ActivationSource(Protocol):
    """Whatever gives members' activations on a probe: models read from a cohort, or planted truth."""

    @property
    def sites(self) -> Sequence[str]: ...

    @property
    def documents(self) -> Mapping[Split, int]: ...

    def chunks(self, split: Split) -> Iterator[Activations]:
        """The tokens of a split, always the same ones in the same chunks."""
        ...


@runtime_checkable
class Spliceable(Protocol):
    """A source whose members go on computing from an edited site."""

    def losses(
        self, member: int, split: Split, site: str | None = None, edit: Edit | None = None
    ) -> DocumentLosses:
        """The loss of a member on a split, as it is or with `edit` done at `site`."""
        ...


@dataclass(frozen=True)
class Predictions:
    """How well a member says the labels of some tokens; every token has one.

    `seen` is how many tokens of its document the model has read before, `losses` are cross-entropies in nats.
    """

    document: Int[Tensor, " n"]
    seen: Int[Tensor, " n"]
    losses: Mapping[str, Float[Tensor, " n"]]
    labels: Mapping[str, Int[Tensor, " n"]]


@runtime_checkable
class Predicting(Protocol):
    """A source whose members say labels."""

    def predictions(self, member: int, split: Split) -> Iterator[Predictions]:
        """Of the tokens of a split, in the chunks of `chunks`."""
        ...


@dataclass(frozen=True)
class ModelActivations:
    """The residual streams of several models on the probe, computed as they are asked for."""

    models: Sequence[HookedModel]
    sites: Sequence[str]
    task: Task
    probe: ProbeConfig
    device: torch.device
    coordinates: Coordinates | None = None

    @property
    def documents(self) -> Mapping[Split, int]:
        return {split: getattr(self.probe, split) for split in SPLITS}

    def chunks(self, split: Split) -> Iterator[Activations]:
        for chunk in self.task.probe(self.probe, split, self.device):
            each = [activations(model, chunk, self.sites, self.coordinates) for model in self.models]
            values = {site: torch.stack([own[site] for own in each]) for site in self.sites}
            yield Activations(values, chunk.document, chunk.position)

    def predictions(self, member: int, split: Split) -> Iterator[Predictions]:
        for chunk in self.task.probe(self.probe, split, self.device):
            losses = head_losses(self.models[member], chunk)
            labels = {head: chunk.labels[head][chunk.kept] for head in losses}
            yield Predictions(chunk.document, chunk.seen, losses, labels)

    def losses(
        self, member: int, split: Split, site: str | None = None, edit: Edit | None = None
    ) -> DocumentLosses:
        total = torch.zeros(self.documents[split], dtype=torch.float64, device=self.device)
        tokens = torch.zeros(self.documents[split], dtype=torch.long, device=self.device)
        for chunk in self.task.probe(self.probe, split, self.device):
            each = token_losses(self.models[member], chunk, site, edit, self.coordinates).double()
            total.index_add_(0, chunk.document, each)
            tokens.index_add_(0, chunk.document, torch.ones_like(chunk.document))
        return DocumentLosses(total, tokens)


@dataclass(frozen=True)
class ModelStream:
    """Fresh activations without end: a batch is a function of the step, and no probe or training has met it."""

    models: Sequence[HookedModel]
    sites: Sequence[str]
    task: Task
    tokens: int
    """In a batch, the same ones for every model and site."""
    seed: int
    device: torch.device
    first: int = 0
    """The step that this stream counts as its step 0."""
    coordinates: Coordinates | None = None

    def batch(self, step: int) -> dict[str, Float[Tensor, "members n d"]]:
        """The batch of a step: whole documents, but for the last, which ends where the batch is full."""
        chunk = self.task.fresh(self.seed, self.first + step, self.tokens, self.device)
        order = (chunk.document * (int(chunk.position.max()) + 1) + chunk.position).argsort()[: self.tokens]
        each = [activations(model, chunk, self.sites, self.coordinates) for model in self.models]
        return {site: torch.stack([own[site][order] for own in each]) for site in self.sites}
