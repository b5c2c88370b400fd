"""What every architecture is to the rest: how many dimensions and sites there are, and models made or read back."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

Weights = Mapping[str, Tensor]


class HookedModel(Protocol):
    """An `nn.Module`: a model for evaluation, with TransformerLens hooks at its sites.

    It is called with the arguments and keywords that a task gives, and answers with logits by head.
    """

    def run_with_hooks(self, *arguments: Tensor, fwd_hooks: Any, **keywords: Any) -> Mapping[str, Tensor]: ...

    def to(self, device: torch.device) -> Self: ...

    def eval(self) -> Self: ...

    def requires_grad_(self, requires_grad: bool) -> Self: ...


@runtime_checkable
class Architecture(Protocol):
    """The dataclass behind a model's part of the configuration, and of a cohort's identity."""

    name: str

    @property
    def d_model(self) -> int: ...

    @property
    def sites(self) -> Sequence[str]:
        """The distinct places of the residual stream, in the order of the computation."""
        ...

    @property
    def layer_norm(self) -> bool:
        """Whether all that reads the residual stream subtracts its mean over dimensions first (LayerNorm)."""
        ...

    def hooked(self, weights: Weights, reference: Mapping[str, Any] | None, buffers: Weights) -> HookedModel:
        """The model with these weights, or with those that a reference names; verified, in float32, on the CPU."""
        ...


@runtime_checkable
class Trainable(Architecture, Protocol):
    """An architecture whose members are trained here."""

    def check_task(self, task: Any) -> None:
        """`ValueError` for the options of a task that such a model cannot learn."""
        ...

    def untrained(self, seed: int) -> nn.Module:
        """The model before its first step, a function of the seed; answers with logits by head."""
        ...

    def flat_ready(self) -> bool:
        """Whether this machine can call a member with what a task gives as `flat_inputs`."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """What stands beside the weights of a checkpoint, so that others can open it."""
        ...

    @property
    def io_parameters(self) -> Sequence[str]:
        """What a `shared_io` cohort takes from its donor and freezes."""
        ...

    @property
    def final_gain(self) -> Sequence[str]:
        """The parameters of the final norm, which such a cohort may freeze too."""
        ...


def mean_free_basis(d: int) -> Float[Tensor, "d d-1"]:
    """Orthonormal columns that span what is left of ℝᵈ without the direction of all ones; float64.

    LayerNorm subtracts the mean over dimensions, so nothing downstream sees that direction, and the exact
    symmetry of such a residual stream is O(d − 1). Of all bases this one stays closest to the axes, so that a
    privileged axis still shows: the reflection that exchanges the last axis with (1, …, 1)/√d, less that one.
    """
    v = torch.full((d,), -(d**-0.5), dtype=torch.float64)
    v[-1] += 1
    reflection = torch.eye(d, dtype=torch.float64) - 2 * torch.outer(v, v) / (v @ v)
    return reflection[:, :-1]
