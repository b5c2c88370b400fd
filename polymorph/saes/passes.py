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
    """Who computes the passes. Features, gates and gradients that are given are overwritten where that saves a copy."""

    def rectified(self, pre: Tensor, bias: Float[Tensor, " f"]) -> Tensor:
        """pre + bias, where that is above 0; overwrites `pre`."""
        ...

    def masked(self, features: Tensor, gradient: Tensor, price: Float[Tensor, " f"] | None) -> Masked:
        """gradient + price where `features`, which are not negative, are not 0; overwrites `gradient`."""
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
        price: Tensor,
    ) -> Joined:
        """What `split` sends back, for gradients by_features and by_gates + price; overwrites `pre` and both."""
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
    """Plain PyTorch, which bears `torch.vmap`: every operation is a pass over memory of its own, so there are few."""

    def rectified(self, pre: Tensor, bias: Tensor) -> Tensor:
        return pre.add_(bias).relu_()

    def masked(self, features: Tensor, gradient: Tensor, price: Tensor | None) -> Masked:
        own = _where_above_0(features, gradient if price is None else gradient.add_(price))
        fired = features.sign()  # a sum of booleans is many times slower
        return Masked(own, *(_sum(each) for each in (own, fired, features)))

    def split(self, pre: Tensor, gate_bias: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        gate_bias, scale, bias = (each.to(pre.dtype) for each in (gate_bias, scale, bias))
        gate, magnitude = pre + gate_bias, torch.addcmul(bias, pre, scale).relu_()
        return _where_above_0(gate, magnitude), gate.relu_()

    def joined(
        self,
        pre: Tensor,
        scale: Tensor,
        features: Tensor,
        gates: Tensor,
        by_features: Tensor,
        by_gates: Tensor,
        price: Tensor,
    ) -> Joined:
        from_gate = _where_above_0(gates, by_gates.add_(price))
        from_magnitude = _where_above_0(features, by_features)
        gradient = torch.addcmul(from_gate, from_magnitude, scale.to(pre.dtype))
        summed = (from_gate, from_magnitude, pre.mul_(from_magnitude), features.sign(), gates)
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
        return torch.zeros_like(pre).scatter_(-1, indices, values)


def _where_above_0(features: Tensor, gradient: Tensor) -> Tensor:
    """A ReLU's gradient: one pass, where a comparison and a choice are two."""
    own: Tensor = torch.ops.aten.threshold_backward(gradient, features, 0)
    return own


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
