"""Causal attention over sequences of unequal length laid one after the other.

A *layout* (see `polymorph.tasks.packing`) says how a flat axis of tokens splits into sequences. Groups are dense
rectangles, so attention needs no mask but the causal one and computes little that is PAD. Where the sequences are
given by their starts, a kernel of our own computes none of it.

On a CPU explicit products beat the fused kernel for sequences this short; on an accelerator the fused one
wins. Neither is batched by `vmap`, so the member axis of a stack is folded into the batch by a rule here.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from polymorph.kernels.ragged_attention import ragged_attention
from polymorph.tasks.packing import Layout


def attention_scores(
    q: Float[Tensor, "row pos head d_head"], k: Float[Tensor, "row pos head d_head"]
) -> Float[Tensor, "row head pos pos"]:
    """q kᵀ/√d_head, minus infinity on the future."""
    scores = torch.einsum("rqhd,rkhd->rhqk", q, k) * q.shape[-1] ** -0.5
    return scores.masked_fill(_future(q.shape[-3], q.device), float("-inf"))


def attend(
    qkv: Float[Tensor, "*batch token 3 head d_head"], layout: Layout
) -> Float[Tensor, "*batch token head d_head"]:
    """softmax(scores) v inside each sequence of the layout; differentiable once, also under `vmap`."""
    result: Tensor = _Attention.apply(qkv, layout)[0]
    return result


def attend_ragged(
    qkv: Float[Tensor, "row token 3 head d_head"], starts: Int[Tensor, " sequences_and_1"]
) -> Float[Tensor, "row token head d_head"]:
    """The same for sequences of any lengths, by the kernel for CPUs; `starts` count on from row to row."""
    out: Tensor = ragged_attention(qkv.flatten(0, 1).contiguous(), starts)[
        0
    ]  # a view; a slice has a costly gradient
    return out.view(len(qkv), -1, *out.shape[1:])


@lru_cache(64)
def starts_of(layout: Layout, rows: int = 1) -> Int[Tensor, " sequences_and_1"]:
    """Where the sequences of so many rows in groups start, laid end to end."""
    lengths = [length for count, length in layout for _ in range(count)] * rows
    return torch.tensor([0, *lengths]).cumsum(0)


class _Attention(torch.autograd.Function):
    """Explicit attention. Each group is brought once into the order of the batched products, and kept so."""

    @staticmethod
    def forward(qkv: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        out = torch.empty_like(qkv[..., 0, :, :])
        kept = []
        for span, rows, length in _spans(layout):
            group = _by_sequence(qkv[..., span, :, :, :], rows)
            q, k, v = group.flatten(1, -3)
            scores = torch.baddbmm(_blocked(length, q), q, k.mT, alpha=q.shape[-1] ** -0.5)
            pattern = scores.softmax(-1)
            _write((pattern @ v).view(1, *group.shape[1:]), out[..., span, None, :, :], rows)
            kept += [group, pattern]
        return out, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        qkv, ctx.layout = inputs
        ctx.shape = qkv.shape
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, *_: None) -> tuple[Tensor, None]:
        kept = iter(ctx.saved_tensors)
        grad_qkv = grad_out.new_empty(ctx.shape)
        for span, rows, _length in _spans(ctx.layout):
            group, pattern = next(kept), next(kept)
            q, k, v = group.flatten(1, -3)
            scale = q.shape[-1] ** -0.5
            grad = _by_sequence(grad_out[..., span, None, :, :], rows)[0].flatten(0, -3)
            grad_scores = torch._softmax_backward_data(grad @ v.mT, pattern, -1, pattern.dtype)
            grads = torch.empty_like(group)
            grad_q, grad_k, grad_v = grads.flatten(1, -3)
            torch.baddbmm(grad_q, grad_scores, k, beta=0, alpha=scale, out=grad_q)
            torch.baddbmm(grad_k, grad_scores.mT, q, beta=0, alpha=scale, out=grad_k)
            torch.bmm(pattern.mT, grad, out=grad_v)
            _write(grads, grad_qkv[..., span, :, :, :], rows)
        return grad_qkv, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], qkv: Tensor, layout: Layout
    ) -> tuple[tuple[Tensor | None, ...], tuple[int | None, ...]]:
        qkv = qkv.movedim(in_dims[0] or 0, 0)
        out = _fused(qkv, layout) if qkv.is_cuda else attend(qkv, layout)
        nothing = [None] * (2 * len(layout))
        return (out, *nothing), (0, *nothing)


def _fused(qkv: Tensor, layout: Layout) -> Tensor:
    outputs = []
    for span, rows, _ in _spans(layout):
        group = _by_sequence(qkv[..., span, :, :, :], rows)
        q, k, v = group.flatten(1, -4)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True).view(group.shape[1:])
        outputs.append(out.transpose(-2, -3).flatten(-4, -3))
    return torch.cat(outputs, -3)


def _spans(layout: Layout) -> Iterator[tuple[slice, int, int]]:
    start = 0
    for rows, length in layout:
        yield slice(start, start + rows * length), rows, length
        start += rows * length


def _by_sequence(tokens: Tensor, rows: int) -> Tensor:
    """[*batch, token, kind, head, d] → [kind, *batch, rows, head, length, d], contiguous."""
    return tokens.unflatten(-4, (rows, -1)).movedim(-3, 0).transpose(-2, -3).contiguous()


def _write(group: Tensor, tokens: Tensor, rows: int) -> None:
    """Put [kind, *batch, rows, head, length, d] into the tokens [*batch, token, kind, head, d] of its group."""
    tokens.unflatten(-4, (rows, -1)).copy_(group.transpose(-2, -3).movedim(0, -3))


def _future(length: int, device: torch.device) -> Bool[Tensor, "pos pos"]:
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def _blocked(length: int, like: Tensor) -> Float[Tensor, "pos pos"]:
    return like.new_zeros(length, length).masked_fill_(_future(length, like.device), float("-inf"))
