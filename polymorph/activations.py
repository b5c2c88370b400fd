"""Activations of a member on the probe: an iterator over chunks of tokens, never an archive.

The probe is a stream of the task that training and evaluation do not meet; its fit split and its eval split
are different sequences. A chunk holds whole documents (sequences) and no PAD.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from polymorph.models.attention import Layout
from polymorph.tasks.dyck import Batch, Dyck
from polymorph.training.packing import IGNORED, pack

Split = Literal["fit", "eval"]
SPLITS: tuple[Split, ...] = ("fit", "eval")
_AT_ONCE = 256  # documents a chunk; controls are shuffled inside a chunk
_GROUPS = 16


@dataclass
class ProbeConfig:
    """The inputs on which members are compared."""

    fit: int = 1024
    """Documents on which maps are fitted."""
    eval: int = 1024
    """Other documents, on which they are scored."""
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("fit", "eval"):
            if getattr(self, key) < 2:
                raise ValueError(f"probe.{key}={getattr(self, key)}: at least 2 documents")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"probe.seed={self.seed}: from 0 to 2^32 - 1")

    def identity(self) -> dict[str, Any]:
        """What makes two probes the same probe."""
        return {**asdict(self), "distribution": "train"}


@dataclass(frozen=True)
class Chunk:
    """Some documents of a split, ready for the model. `document` and `position` belong to the tokens kept."""

    tokens: Int[Tensor, "1 token"]
    positions: Int[Tensor, "1 token"]
    labels: Mapping[str, Int[Tensor, "1 token"]]
    layout: Layout
    kept: Bool[Tensor, " token"]
    document: Int[Tensor, " n"]
    position: Int[Tensor, " n"]


def probe_chunks(task: Dyck, probe: ProbeConfig, split: Split, device: torch.device) -> Iterator[Chunk]:
    """The documents of one split, always the same ones in the same chunks."""
    documents = getattr(probe, split)
    for first in range(0, documents, _AT_ONCE):
        step = torch.tensor([2 * (first // _AT_ONCE) + SPLITS.index(split)])
        size = min(_AT_ONCE, documents - first)
        batch = task.batches(torch.tensor([probe.seed], device=device), step, size, "probe")[0]
        yield _chunk(batch, first)


def _chunk(batch: Batch, first: int) -> Chunk:
    """The sequences of one member's batch, numbered from `first` on, packed for the model."""
    device, size = batch.tokens.device, batch.tokens.shape[-2]
    packed = pack(batch, _GROUPS)
    kept = packed.labels["tok"][0, 0] != IGNORED
    document = first + batch.lengths.argsort(dim=-1, descending=True, stable=True)[0]
    rows = torch.repeat_interleave(
        torch.arange(size, device=device),
        torch.tensor([length for count, length in packed.layout for _ in range(count)], device=device),
    )
    positions = packed.positions[0]
    labels = {head: label[0] for head, label in packed.labels.items()}
    return Chunk(
        packed.tokens[0], positions, labels, packed.layout, kept, document[rows][kept], positions[0][kept]
    )


@torch.no_grad()
def activations(
    model: HookedRootModule, chunk: Chunk, sites: Sequence[str]
) -> dict[str, Float[Tensor, "n d_model"]]:
    """The residual stream at the sites, on the tokens of the chunk; nothing of the model is changed."""
    wanted = set(sites)
    _, cache = model.run_with_cache(
        chunk.tokens,
        chunk.positions,
        layout=chunk.layout,
        names_filter=lambda name: name in wanted,
    )
    return {site: cache[site][0, chunk.kept] for site in sites}


Edit = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]]
"""What is done to the activations of a site on the tokens kept."""


@torch.no_grad()
def token_losses(
    model: HookedRootModule, chunk: Chunk, site: str | None = None, edit: Edit | None = None
) -> Float[Tensor, " n"]:
    """Cross-entropy in nats, summed over heads, of every token kept; with `edit` done at `site` on the way."""

    def spliced(values: Tensor, hook: HookPoint) -> Tensor:
        assert edit is not None
        changed = values.clone()
        changed[0, chunk.kept] = edit(values[0, chunk.kept]).to(values.dtype)
        return changed

    hooks = [] if site is None or edit is None else [(site, spliced)]
    logits = model.run_with_hooks(chunk.tokens, chunk.positions, layout=chunk.layout, fwd_hooks=hooks)
    each = [
        F.cross_entropy(
            logits[head][0, chunk.kept].float(), chunk.labels[head][0, chunk.kept], reduction="none"
        )
        for head in logits
    ]
    return torch.stack(each).sum(0)


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
class ModelActivations:
    """The residual streams of several models on the probe, computed as they are asked for."""

    models: Sequence[HookedRootModule]
    sites: Sequence[str]
    task: Dyck
    probe: ProbeConfig
    device: torch.device

    @property
    def documents(self) -> Mapping[Split, int]:
        return {split: getattr(self.probe, split) for split in SPLITS}

    def chunks(self, split: Split) -> Iterator[Activations]:
        for chunk in probe_chunks(self.task, self.probe, split, self.device):
            each = [activations(model, chunk, self.sites) for model in self.models]
            values = {site: torch.stack([own[site] for own in each]) for site in self.sites}
            yield Activations(values, chunk.document, chunk.position)

    def losses(
        self, member: int, split: Split, site: str | None = None, edit: Edit | None = None
    ) -> DocumentLosses:
        total = torch.zeros(self.documents[split], dtype=torch.float64, device=self.device)
        tokens = torch.zeros(self.documents[split], dtype=torch.long, device=self.device)
        for chunk in probe_chunks(self.task, self.probe, split, self.device):
            each = token_losses(self.models[member], chunk, site, edit).double()
            total.index_add_(0, chunk.document, each)
            tokens.index_add_(0, chunk.document, torch.ones_like(chunk.document))
        return DocumentLosses(total, tokens)


@dataclass(frozen=True)
class ModelStream:
    """Fresh activations without end: a batch is a function of the step, and no probe or training has met it."""

    models: Sequence[HookedRootModule]
    sites: Sequence[str]
    task: Dyck
    tokens: int
    """In a batch, the same ones for every model and site."""
    seed: int
    device: torch.device
    first: int = 0
    """The step that this stream counts as its step 0."""

    def batch(self, step: int) -> dict[str, Float[Tensor, "members n d"]]:
        """The batch of a step: whole documents, but for the last, which ends where the batch is full."""
        chunk = _chunk(self._documents(self.first + step), 0)
        order = (chunk.document * (int(chunk.position.max()) + 1) + chunk.position).argsort()[: self.tokens]
        each = [activations(model, chunk, self.sites) for model in self.models]
        return {site: torch.stack([own[site][order] for own in each]) for site in self.sites}

    def _documents(self, step: int) -> Batch:
        seeds, steps = torch.tensor([self.seed], device=self.device), torch.tensor([step], device=self.device)
        size = 32
        while True:  # the first k sequences of a step do not depend on how many are asked for
            batch = self.task.batches(seeds, steps, size, "sae")[0]
            if int(batch.lengths.sum()) >= self.tokens:
                break
            size *= 2
        enough = int((batch.lengths[0].cumsum(0) < self.tokens).sum()) + 1
        return self.task.batches(seeds, steps, enough, "sae")[0]
