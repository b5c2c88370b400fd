"""What decides the last bits of a result, and the settings of the process that training wants."""

import ctypes
import os
import platform
import sys
from typing import Any

import torch

from polymorph.errors import RequestError
from polymorph.training.config import TrainerConfig

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = (1 << 31) - 1
_LARGEST_MMAP_THRESHOLD = 1 << 25
SMALL_MATRIX = 128


def prepare_process(threads: int | None) -> None:
    """Set PyTorch's threads, and keep the C library from giving activations back to the system each step.

    glibc maps every large block anew and unmaps it when freed, so each step pays page faults for all of its
    activations; on this model that is a quarter of the time. Other C libraries are left as they are.
    """
    torch.set_num_threads(threads if threads is not None else default_threads())
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def default_threads() -> int:
    """Every core, at most 8, whatever the launcher has set."""
    return min(8, os.cpu_count() or 1)


def algebra_threads(d: int) -> int:
    """For d × d matrices: products of small ones are not worth sharing, and shared ones wait for each other."""
    return 1 if d <= SMALL_MATRIX else default_threads()


def device_of(accelerator: str) -> torch.device:
    """The device that `trainer.accelerator` means here; `RequestError` for one that is not there."""
    there = torch.cuda.is_available()
    if accelerator == "gpu" and not there:
        raise RequestError("trainer.accelerator=gpu: there is no GPU here; give cpu, or auto")
    return torch.device("cuda" if there and accelerator != "cpu" else "cpu")


def length_groups(config: TrainerConfig, device: torch.device) -> int:
    if config.length_groups is not None:
        return config.length_groups
    if config.compile:
        return 1  # all are padded to the context then
    return 16 if device.type == "cpu" else 4


def numerics(device: torch.device, precision: str, groups: int, compiled: bool) -> dict[str, Any]:
    """Equal numerics and an equal stack give equal bits; anything else gives equality to rounding."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "capability": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else "",
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "precision": precision,
        "length_groups": groups,
        "compile": compiled,
    }


BFLOAT16_ISAS = ("BF16", "FP16", "AMX", "AVX10")
"""Parts of the names of oneDNN's instruction sets that have products of bfloat16."""


def has_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are the hardware's own there, and not forbidden by the environment."""
    if device.type != "cpu":
        return device.type != "cuda" or torch.cuda.is_bf16_supported()
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "DEFAULT")).upper()
    allowed = limit in ("ALL", "DEFAULT") or any(part in limit for part in BFLOAT16_ISAS)
    return allowed and torch.backends.cpu.get_cpu_capability() == "AVX512"


def resolve_precision(requested: str, device: torch.device) -> str:
    """`float32` or `bfloat16`: what is requested, or, for `auto`, bfloat16 where the hardware has it."""
    if requested != "auto":
        return requested
    return "bfloat16" if has_bfloat16(device) else "float32"
