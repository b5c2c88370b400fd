"""Tensors as bytes and back, by safetensors, in memory: no file is opened here and none is mapped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from polymorph.store.errors import CorruptError

if TYPE_CHECKING:
    from torch import Tensor


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Equal tensors under equal names give equal bytes, whatever their order, strides, device or sharing."""
    import safetensors.torch  # late: a cohort is listed without torch

    # safetensors refuses tensors that share memory; a copy of each is the same tensor without that.
    return safetensors.torch.save({name: _dense(tensors[name]) for name in sorted(tensors)})


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def from_bytes(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in `data`, which was read from `path`; `CorruptError` if it is not safetensors."""
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(data)
    # What a header may say has no end, and neither have the types of error that it raises.
    except Exception as error:
        raise CorruptError(f"{path} is not safetensors: {error}") from error
    return {name: tensors[name] for name in sorted(tensors)}
