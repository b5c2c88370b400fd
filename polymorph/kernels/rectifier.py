"""ReLU whose backward reads its own output."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def relu(x: Tensor) -> Tensor:
    """max(x, 0), with the values and, where they are finite, the gradients of `torch.relu`.

    Compiled, `torch.relu` keeps a boolean mask for the backward pass, whose packing costs more than all other
    element-wise work of the model; the output is kept anyway, for the next product.
    """
    result: Tensor = _Relu.apply(x)
    return result


class _Relu(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.relu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        if torch.compiler.is_compiling():
            return grad * y.sign()  # y is not negative, and this becomes vector instructions
        return torch.ops.aten.threshold_backward(grad, y, 0)
