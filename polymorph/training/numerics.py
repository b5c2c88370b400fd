"""What decides the last bits of a result, and the settings of the process that training wants."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from polymorph.errors import RequestError
from polymorph.kernels import native
from polymorph.training.config import TrainerConfig

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = (1 << 31) - 1
_LARGEST_MMAP_THRESHOLD = 1 << 25
SMALL_MATRIX = 128
LONG_TRAINING = 50_000
"""Sequences of a member from which on `trainer.compile=auto` compiles. The first time that saves about what it
takes, 20 to 40 s; from then on, out of the cache in 6 s, it saves half of the training's time."""

Layout = Literal["groups", "flat", "padded"]


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
    """The device that `trainer.accelerator` means here; `RequestError` for one that is not there.

    Apple's GPU is refused and never chosen: moments are sums in float64, which its device `mps` does not have.
    """
    there = torch.cuda.is_available()
    if accelerator == "gpu" and not there:
        if torch.backends.mps.is_available():
            raise RequestError(
                "trainer.accelerator=gpu: Apple's GPU has no float64, in which activations are compared; give cpu, or "
                "auto, which is the CPU here"
            )
        raise RequestError("trainer.accelerator=gpu: there is no GPU here; give cpu, or auto")
    return torch.device("cuda" if there and accelerator != "cpu" else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are done in hardware: by the accelerator, or by instructions of the processor.

    Instructions that `ONEDNN_MAX_CPU_ISA` or `ATEN_CPU_CAPABILITY` switch off count as not there.
    """
    if device.type != "cpu":
        return device.type != "cuda" or torch.cuda.is_bf16_supported()
    there = torch.cpu.get_capabilities()
    switched_off = not any(
        word in _isa_limit() for word in ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10")
    )
    plain = os.environ.get("ATEN_CPU_CAPABILITY", "").lower() in ("default", "avx2")
    return not switched_off and not plain and bool(there.get("avx512_bf16") or there.get("amx_bf16"))


def resolve_precision(requested: str, device: torch.device) -> str:
    """`float32` or `bfloat16`: what is asked for, and for `auto` the fastest that the device has in hardware."""
    if requested != "auto":
        return requested
    return "bfloat16" if has_bfloat16(device) else "float32"


@dataclass(frozen=True)
class StepMode:
    """How a training step is computed."""

    precision: str = "float32"
    """Of products and attention."""
    layout: Layout = "groups"
    """Of the sequences of a batch: `flat`, end to end, members one after another; `groups` of equal length, or `padded`
    to the context, all members at once. `flat` and `padded` have shapes that never change, and a device need not be
    asked for those of `padded`."""
    compiled: bool = False


def step_mode(config: TrainerConfig, device: torch.device, flat_ready: Callable[[], bool]) -> StepMode:
    """The mode of a new training on a device; `RequestError` if it asks for what is not to be had.

    `flat_ready` says whether the model can be called with sequences laid end to end, and is asked where that matters.
    """
    precision = resolve_precision(config.precision, device)
    long = config.max_steps * config.batch_size >= LONG_TRAINING
    if device.type != "cpu":
        return StepMode(precision, "padded", config.compile is True or (config.compile == "auto" and long))
    if config.compile is False:
        return StepMode(precision)
    ready = flat_ready()
    if config.compile is True and not ready:
        raise RequestError(
            "trainer.compile=true: a CPU needs a C++ compiler and heads of a multiple of 16 dimensions for it; "
            "install g++, or give trainer.compile=auto"
        )
    return StepMode(precision, "flat", config.compile is True or long) if ready else StepMode(precision)


def resumed_mode(mode: StepMode, before: Sequence[Mapping[str, Any]], compile: Any) -> StepMode:
    """With `trainer.compile=auto`, the layout and compilation that members began with, by the numerics of their states.

    So a member that once had no compiler goes on without one. `mode` is that of a new training: it stays where
    members differ, where something else was asked for, or where sequences cannot be laid end to end here.
    """
    modes = {(own.get("layout"), own.get("compile")) for own in before}
    if compile != "auto" or len(modes) != 1:
        return mode
    ((layout, compiled),) = modes
    possible = layout == mode.layout or (layout, mode.layout) == ("groups", "flat")
    if layout is None or compiled is None or not possible:
        return mode
    return StepMode(mode.precision, layout, compiled)


def length_groups(config: TrainerConfig, device: torch.device) -> int:
    if config.length_groups is not None:
        return config.length_groups
    return 16 if device.type == "cpu" else 4


def numerics(device: torch.device, mode: StepMode, groups: int) -> dict[str, Any]:
    """Equal numerics and an equal stack give equal bits; anything else gives equality to rounding."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "capability": capability() if device.type == "cpu" else "",
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "precision": mode.precision,
        "length_groups": groups,
        "layout": mode.layout,
        "compile": mode.compiled,
        "compiler": native.compiler_version() if mode.layout == "flat" or mode.compiled else "",
    }


def capability() -> str:
    """The processor's vector instructions, those for bfloat16, and the environment's limit on them.

    They differ in how they add up.
    """
    there = torch.cpu.get_capabilities()
    tiles = "AMX" if there.get("amx_bf16") else "BF16" if there.get("avx512_bf16") else ""
    limit = _isa_limit()
    parts = (torch.backends.cpu.get_cpu_capability(), tiles, "" if limit == "DEFAULT" else f"at most {limit}")
    return " ".join(filter(None, parts))


def _isa_limit() -> str:
    """The instructions that oneDNN may use, by its environment variable of today or before."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "DEFAULT")).upper()
