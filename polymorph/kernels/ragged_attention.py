"""Causal attention over ragged sequences as one opaque operator with its own backward, for CPUs.

The kernel beside this file is compiled when it is first needed. `torch.compile` sees `ragged_attention` as one call
whose cost does not depend on how a batch splits into sequences, so its shapes never change.
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polymorph.kernels import native

SOURCE = Path(__file__).with_suffix(".cpp")
LANES = 16
DEFINES = {torch.float32: (), torch.bfloat16: ("BFLOAT16",)}


def has_kernel(d_head: int) -> bool:
    """Whether this machine can run the operator for heads of this width: it takes a C++ compiler once."""
    if d_head % LANES:
        return False
    try:
        for dtype in DEFINES:
            _library(d_head, dtype)
    except native.CompileError:
        return False
    return True


@torch.library.custom_op("polymorph::ragged_attention", mutates_args=())
def ragged_attention(qkv: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Mix v inside each sequence: [token 3 head d_head] and [sequences + 1] → [token head d_head].

    The second result is the log-sum-exp of every row of scores, float32 [token head], for the backward pass. Sequence
    i has the tokens from `starts[i]` up to, not including, `starts[i + 1]`; `qkv` is float32 or bfloat16, contiguous,
    on the CPU. Tokens from `starts[-1]` on belong to no sequence and come out as 0.
    """
    tokens, _, heads, d_head = qkv.shape
    out = qkv.new_empty(tokens, heads, d_head)
    log_sums = qkv.new_empty(tokens, heads, dtype=torch.float32)
    end = int(starts[-1])
    _call("ragged_forward", qkv, (qkv, starts), starts, (out, log_sums))
    out[end:].zero_()
    log_sums[end:].zero_()
    return out, log_sums


@torch.library.custom_op("polymorph::ragged_attention_backward", mutates_args=())
def ragged_attention_backward(
    qkv: Tensor, out: Tensor, log_sums: Tensor, grad_out: Tensor, starts: Tensor
) -> Tensor:
    """The gradient of `qkv` from that of `out`."""
    grad_qkv = torch.empty_like(qkv)
    given = (qkv, out, log_sums, grad_out.contiguous(), starts)
    _call("ragged_backward", qkv, given, starts, (grad_qkv,))
    grad_qkv[int(starts[-1]) :].zero_()
    return grad_qkv


@ragged_attention.register_fake
def _(qkv: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    tokens, _, heads, d_head = qkv.shape
    return qkv.new_empty(tokens, heads, d_head), qkv.new_empty(tokens, heads, dtype=torch.float32)


@ragged_attention_backward.register_fake
def _(qkv: Tensor, out: Tensor, log_sums: Tensor, grad_out: Tensor, starts: Tensor) -> Tensor:
    return torch.empty_like(qkv)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor, None]:
    qkv, starts, out, log_sums = ctx.saved_tensors
    return ragged_attention_backward(qkv, out, log_sums, grad_out, starts), None


ragged_attention.register_autograd(_backward, setup_context=_remember)


def _call(
    name: str, qkv: Tensor, given: tuple[Tensor, ...], starts: Tensor, made: tuple[Tensor, ...]
) -> None:
    """Run one function of the kernel: inputs, then the counts, then the outputs."""
    if qkv.dtype not in DEFINES or starts.dtype != torch.int64:
        raise TypeError(f"ragged attention of {qkv.dtype} by {starts.dtype}: float32 or bfloat16, by int64")
    if not all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in (*given, *made)):
        raise ValueError("ragged attention takes contiguous tensors on the CPU")
    lengths = starts.diff()
    if len(lengths) < 1 or starts[0] != 0 or bool((lengths < 0).any()) or starts[-1] > len(qkv):
        raise ValueError(f"starts go up from 0 to at most {len(qkv)}, and there is a sequence")
    longest = int(lengths.max())
    library = _library(qkv.shape[-1], qkv.dtype)
    counts = (ctypes.c_int64(starts.numel() - 1), ctypes.c_int64(qkv.shape[-2]), ctypes.c_int64(longest))
    getattr(library, name)(*map(_pointer, given), *counts, *map(_pointer, made), torch.get_num_threads())


def _library(d_head: int, dtype: torch.dtype) -> ctypes.CDLL:
    return native.library(SOURCE, f"D_HEAD={d_head}", *DEFINES[dtype])


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
