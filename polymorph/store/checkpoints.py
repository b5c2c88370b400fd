"""What a member publishes at a step: its weights, or where they are; and apart from them what resuming needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polymorph.store.canonical_json import parse_mapping, readable
from polymorph.store.errors import CorruptError
from polymorph.store.manifest import Manifest
from polymorph.store.step_folders import Shelf
from polymorph.store.tensors import from_bytes, to_bytes

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "weights.safetensors"
BUFFERS = "buffers.safetensors"
STATE = "state.safetensors"
REFERENCE = "reference.json"
CONFIG = "config.json"
"""Of other software: what an architecture publishes beside its weights."""


@dataclass(frozen=True)
class Checkpoint:
    """A model at a step, verified: parameters alone in `weights`, buffers of its own beside them.

    An imported model has no weights here, but a `reference` to where they are.
    """

    step: int
    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    manifest: Manifest
    reference: dict[str, Any] | None = None

    @property
    def digest(self) -> str:
        """Stands for the weights, the buffers and every fact that was published with them."""
        return self.manifest.digest

    @property
    def weights_digest(self) -> str:
        """Equal for two checkpoints with equal weights, whatever else was published with them."""
        if self.reference is not None:
            return str(self.reference["weights"])
        return self.manifest.files[WEIGHTS].sha256


@dataclass(frozen=True)
class State:
    """What resuming after a step needs, verified: optimiser, counters and generators as tensors."""

    step: int
    tensors: dict[str, Tensor]
    manifest: Manifest


def checkpoint_files(
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor] | None,
    others: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """`others` stand beside the weights, so that other software can open them."""
    own = {} if buffers is None else {BUFFERS: to_bytes(buffers)}
    return {**(others or {}), WEIGHTS: to_bytes(weights), **own}


def reference_files(reference: Mapping[str, Any]) -> dict[str, bytes]:
    """`reference` says where the weights are, and holds their SHA-256 under `weights`."""
    if type(reference.get("weights")) is not str:
        raise ValueError("a reference holds the SHA-256 of its weights under `weights`")
    return {REFERENCE: readable(reference)}


def read_checkpoint(shelf: Shelf, step: int) -> Checkpoint:
    published = shelf.read(step)
    path = shelf.path(step)
    if (reference := published.files.get(REFERENCE)) is not None:
        _check_files(shelf, step, set(published.files), {REFERENCE})
        return Checkpoint(step, {}, {}, published.manifest, _reference(reference, path / REFERENCE))
    _check_files(shelf, step, set(published.files) - {BUFFERS, CONFIG}, {WEIGHTS})
    weights = from_bytes(published.files[WEIGHTS], path / WEIGHTS)
    buffers = published.files.get(BUFFERS)
    own = {} if buffers is None else from_bytes(buffers, path / BUFFERS)
    return Checkpoint(step, weights, own, published.manifest)


def _reference(data: bytes, path: Path) -> dict[str, Any]:
    found = parse_mapping(data, path)
    if not isinstance(found.get("weights"), str):
        raise CorruptError(f"{path} states no SHA-256 of its weights")
    return found


def read_state(shelf: Shelf, step: int) -> State:
    published = shelf.read(step)
    _check_files(shelf, step, set(published.files), {STATE})
    return State(step, from_bytes(published.files[STATE], shelf.path(step) / STATE), published.manifest)


def _check_files(shelf: Shelf, step: int, found: set[str], expected: set[str]) -> None:
    if found != expected:
        raise CorruptError(f"{shelf.path(step)} holds {sorted(found)}, not {sorted(expected)}")
