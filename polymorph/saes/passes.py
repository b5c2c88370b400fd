"""The passes over features between the products of a training step, in PyTorch.

`kernels.py` has the same ones compiled, each fused into one loop. Features are [n f], float32 or bfloat16; what is
summed over tokens is float32, whatever they are.
"""

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Masked(NamedTuple):
    """The gradient before a ReLU or a top-k, and sums over tokens, [f] each."""

    gradient: Float[Tensor, "n f"]
    bias: Float[Tensor, " f"]
    """Sum of that gradient."""
    fired: Float[Tensor, " f"]
    """Number of tokens on which the feature is not 0."""
    total: Float[Tensor, " f"]
    """Sum of the feature."""


class Joined(NamedTuple):
    """The gradient of what both paths of a gated SAE read, and sums over tokens, [f] each."""

    gradient: Float[Tensor, "n f"]
    gate_bias: Float[Tensor, " f"]
    bias: Float[Tensor, " f"]
    scale: Float[Tensor, " f"]
    """Sum of the magnitudes' gradient times what both paths read."""
    fired: Float[Tensor, " f"]
    total: Float[Tensor, " f"]
    """Sum of the gates' pre-activations where they are open."""


class Passes(Protocol):
    """Who computes the passes. Any of the tensors [n f] that are given may be overwritten, where it is said."""

    def masked(self, features: Tensor, gradient: Tensor) -> Masked:
        """`gradient` where `features` are not 0; may overwrite it."""
        ...

    def split(self, pre: Tensor, gate_bias: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The features (pre · scale + bias, rectified, where pre + gate_bias > 0), and pre + gate_bias, rectified."""
        ...

    def joined(
        self,
        pre: Tensor,
        scale: Tensor,
        features: Tensor,
        gates: Tensor,
        by_features: Tensor,
        by_gates: Tensor,
    ) -> Joined:
        """What `split` sends back, for gradients by its two results; may overwrite `pre`."""
        ...

    def strongest(
        self,
        pre: Float[Tensor, "n f"],
        norms: Float[Tensor, " f"],
        k: int,
        allowed: Bool[Tensor, " f"] | None,
    ) -> Tensor:
        """Of each token the k entries of `pre` with the largest pre · norms, and 0 elsewhere.

        Without `allowed` those are rectified; with it they are chosen among the allowed, and negative ones stay.
        """
        ...


class EagerPasses:
    """Plain PyTorch, which bears `torch.vmap`: every line is a pass over memory of its own."""

    def masked(self, features: Tensor, gradient: Tensor) -> Masked:
        on = features != 0
        own = torch.where(on, gradient, torch.zeros_like(gradient))
        fired = on.to(features.dtype)  # a sum of booleans is many times slower
        return Masked(own, *(_sum(each) for each in (own, fired, features)))

    def split(self, pre: Tensor, gate_bias: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        gate, magnitude = pre + gate_bias, (pre * scale + bias).relu()
        features = torch.where(gate > 0, magnitude, torch.zeros_like(magnitude))
        return features.to(pre.dtype), gate.relu().to(pre.dtype)

    def joined(
        self,
        pre: Tensor,
        scale: Tensor,
        features: Tensor,
        gates: Tensor,
        by_features: Tensor,
        by_gates: Tensor,
    ) -> Joined:
        on = features != 0
        from_gate = torch.where(gates != 0, by_gates, torch.zeros_like(by_gates))
        from_magnitude = torch.where(on, by_features, torch.zeros_like(by_features))
        gradient = (from_magnitude * scale + from_gate).to(pre.dtype)
        summed = (from_gate, from_magnitude, from_magnitude.float() * pre, on.to(pre.dtype), gates)
        return Joined(gradient, *(_sum(each) for each in summed))

    def strongest(self, pre: Tensor, norms: Tensor, k: int, allowed: Tensor | None) -> Tensor:
        scores = pre * norms
        if allowed is not None:
            scores = torch.where(allowed, scores, torch.full_like(scores, -torch.inf))
        indices = strongest_indices(scores, min(k, scores.shape[-1]))
        values = pre.gather(-1, indices)
        if allowed is None:
            values = values.relu()
        else:
            values = torch.where(scores.gather(-1, indices) > -torch.inf, values, torch.zeros_like(values))
        return torch.zeros_like(pre).scatter(-1, indices, values)


def _sum(x: Float[Tensor, "n f"]) -> Float[Tensor, " f"]:
    return x.sum(0, dtype=torch.float32)


GROUP = 4


def strongest_indices(scores: Float[Tensor, "n f"], k: int) -> Tensor:
    """Where the k largest of each row are, in no order, [n k].

    They are among the k groups with the largest maxima, so few entries need to be compared on a CPU, where
    `torch.topk` takes a time proportional to all of them and more.
    """
    groups, rest = divmod(scores.shape[-1], GROUP)
    if scores.device.type != "cpu" or rest or groups < 2 * k:
        return scores.topk(k, -1, sorted=False).indices
    best = strongest_indices(scores.reshape(-1, GROUP, groups).amax(1), k)
    candidates = torch.cat([best + groups * i for i in range(GROUP)], -1)
    chosen = scores.gather(-1, candidates).topk(k, -1, sorted=False).indices
    return candidates.gather(-1, chosen)
