"""Loss and gradient of a stack on a CPU: one member after another, each as the same compiled function.

On a CPU a batched product gains nothing over one product after another, so a stack costs what its members cost alone,
and needs the memory of one. Each member has the bits that it has alone, and one compilation serves them all. (Where
one member's batch has no room, all take that step together on groups of equal length, which is equal to rounding only.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from polymorph.tasks.task import Inputs
from polymorph.training.loss import head_losses, total
from polymorph.training.stack import Stack

ByHead = dict[str, Tensor]


@dataclass(frozen=True)
class Losses:
    """What a step is about: `total` [members], which has a gradient, and `heads` and `logits`, which have none."""

    total: Tensor
    heads: ByHead
    logits: ByHead


class MemberSteps:
    """Calls `stack` member by member on inputs whose every argument has the member axis first.

    `bfloat16` sets autocast's precision for products and attention; losses are float32.
    """

    def __init__(self, stack: Stack, bfloat16: bool, compiled: bool) -> None:
        self.stack, self.bfloat16 = stack, bfloat16
        self._run = torch.compile(self._member, dynamic=False, fullgraph=True) if compiled else self._member

    def __call__(self, inputs: Inputs) -> Losses:
        """The losses; their gradients are already computed, and `backward` only hands them on."""
        names, parameters = zip(*self.stack.named_member_parameters(), strict=True)
        heads: list[ByHead] = []
        logits: list[ByHead] = []
        losses = _MemberwiseLoss.apply(self, inputs, names, heads, logits, *parameters)
        return Losses(losses, _stacked(heads), _stacked(logits))

    def gradients(
        self, index: int, names: tuple[str, ...], parameters: tuple[Tensor, ...], inputs: Inputs
    ) -> tuple[Tensor, ByHead, ByHead, list[Tensor | None]]:
        """Loss, head losses, logits, and gradients in the order of the parameters, of one member."""
        own = {
            name: value[index].detach().requires_grad_(value.requires_grad)
            for name, value in zip(names, parameters, strict=True)
        }
        arguments = tuple(argument[index] for argument in inputs.arguments)
        labels = {head: label[index] for head, label in inputs.labels.items()}
        with torch.enable_grad():
            loss, heads, logits = self._run(own, self.stack.member_buffers(index), arguments, labels)
        trained = [name for name, value in own.items() if value.requires_grad]
        gradients = dict(zip(trained, torch.autograd.grad(loss, [own[n] for n in trained]), strict=True))
        return loss.detach(), heads, logits, [gradients.get(name) for name in names]

    def _member(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        arguments: tuple[Tensor, ...],
        labels: Mapping[str, Tensor],
    ) -> tuple[Tensor, ByHead, ByHead]:
        with torch.autocast(next(iter(labels.values())).device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.stack.call_member({**parameters, **buffers}, arguments)
        logits = {head: values[None] for head, values in logits.items()}
        losses = head_losses(logits, {head: label[None] for head, label in labels.items()})
        heads = {head: loss[0].detach() for head, loss in losses.items()}
        return total(losses)[0], heads, {head: values[0].detach() for head, values in logits.items()}


class _MemberwiseLoss(torch.autograd.Function):
    """The losses [members] of a stack; forward computes the gradients as well, while a member's data are in cache."""

    @staticmethod
    def forward(
        ctx: Any,
        steps: MemberSteps,
        inputs: Inputs,
        names: tuple[str, ...],
        heads: list[ByHead],
        logits: list[ByHead],
        *parameters: Tensor,
    ) -> Tensor:
        losses, by_member = [], []
        for index in range(steps.stack.size):
            loss, own_heads, own_logits, own = steps.gradients(index, names, parameters, inputs)
            losses.append(loss)
            heads.append(own_heads)
            logits.append(own_logits)
            by_member.append(own)
        ctx.gradients = [_stack_of(own) for own in zip(*by_member, strict=True)]
        return torch.stack(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (
            None if own is None else own * grad.view(-1, *[1] * (own.ndim - 1)) for own in ctx.gradients
        )
        return (*[None] * 5, *scaled)


def _stack_of(gradients: tuple[Tensor | None, ...]) -> Tensor | None:
    there = [gradient for gradient in gradients if gradient is not None]
    return torch.stack(there) if there else None


def _stacked(by_member: list[ByHead]) -> ByHead:
    return {head: torch.stack([own[head] for own in by_member]) for head in by_member[0]}
