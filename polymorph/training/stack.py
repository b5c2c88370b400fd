"""S modules of one architecture as one, with a leading member axis (torch.func)."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state


class Stack(nn.Module):
    """Calls every member on its own slice of the arguments; gradients of one never reach another.

    Parameters have shape [members, …]. One that does not require a gradient in the members does not in the
    stack. S = 1 is the plain case, on the same path.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(list(members))
        frozen = {name for name, p in members[0].named_parameters() if not p.requires_grad}
        self._names = {name: name.replace(".", "/") for name in (*parameters, *buffers)}
        for name, value in parameters.items():
            self.register_parameter(
                self._names[name], nn.Parameter(value.detach(), requires_grad=name not in frozen)
            )
        for name, value in buffers.items():
            self.register_buffer(self._names[name], value)
        self._buffer_names = tuple(buffers)
        self._member = (copy.deepcopy(members[0]).to("meta"),)  # in a tuple: its parameters are not ours
        self.size = len(members)

    def forward(self, *arguments: Tensor, **shared: Any) -> Any:
        """Positional arguments and results carry the member axis first; keywords are the same for all."""

        def call(state: dict[str, Tensor], *arguments: Tensor) -> Any:
            return functional_call(self._member[0], state, arguments, shared)

        state = {name: getattr(self, attribute) for name, attribute in self._names.items()}
        return torch.vmap(call, randomness="different")(state, *arguments)

    def call_member(self, state: Mapping[str, Tensor], arguments: Sequence[Tensor]) -> Any:
        """One member on its own arguments, with these parameters and buffers under the members' own names."""
        return functional_call(self._member[0], dict(state), tuple(arguments))

    def member_buffers(self, index: int) -> dict[str, Tensor]:
        """One member's buffers under the members' own names."""
        return {name: getattr(self, self._names[name])[index] for name in self._buffer_names}

    def named_member_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The stacked parameters under the members' own names."""
        for name, attribute in self._names.items():
            if name not in self._buffer_names:
                yield name, getattr(self, attribute)

    def member_weights(self, index: int) -> dict[str, Tensor]:
        """A copy, on the CPU, of one member's parameters under the names of its own `state_dict`."""
        return {name: p[index].detach().cpu().clone() for name, p in self.named_member_parameters()}
