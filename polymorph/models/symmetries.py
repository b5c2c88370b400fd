"""Which changes of its weights leave a model the same function: a table for each architecture.

A residual stream may be read in any basis that everything reading and writing it shares; what stands in a table is
which axis of which weight turns with it, which weights only meet as a product, and which axes are lists without an
order. What acts on the weights by it is `polymorph.alignment.gauge`.

There is no table for GPT-NeoX or other language models. LayerNorm leaves O(d_model − 1) about the mean over
dimensions, GELU leaves permutations of neurons and no scaling, biases turn with what they are added to, and of
GL(d_head) on queries and keys only that part is left that commutes with every rotary angle: one rotation and one scale
in each rotary plane, and GL on the dimensions without positions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from polymorph.models.architecture import Architecture, Weights


@dataclass(frozen=True)
class Norm:
    """A gain that multiplies the rows of every weight that reads what the norm gives."""

    gain: str
    read_by: tuple[str, ...]


@dataclass(frozen=True)
class Heads:
    """The heads of a layer: `query`, `key` and `value` are [head d_model d_head], `output` [head d_head d_model].

    They may be permuted, together in all four. A head is W_Q W_Kᵀ and W_V W_O: W_Q A with W_K A⁻ᵀ, and W_V B with
    B⁻¹ W_O, are the same one for all A and B of GL(d_head).
    """

    name: str
    query: str
    key: str
    value: str
    output: str


@dataclass(frozen=True)
class Neurons:
    """The neurons of a layer: `into` is [d_model neuron], `out_of` [neuron d_model].

    They may be permuted. ReLU(s x) = s ReLU(x) for s > 0: a neuron may be scaled, and its output scaled back.
    """

    name: str
    into: str
    out_of: str


@dataclass(frozen=True)
class Symmetries:
    """Where the residual stream, heads and neurons stand in the weights of a model without gains.

    `writes` are tables [row d_model] from which the stream starts, by what their rows stand for: `tokens`, or
    `positions`. `reads` are [d_model class], by the head of logits that they give.
    """

    d_model: int
    norms: tuple[Norm, ...]
    writes: Mapping[str, str]
    reads: Mapping[str, str]
    heads: tuple[Heads, ...]
    neurons: tuple[Neurons, ...]

    def folded(self, weights: Weights) -> dict[str, Tensor]:
        """The same function with every gain multiplied into the weights that follow it, and 1 in its place."""
        folded = dict(weights)
        for norm in self.norms:
            for name in norm.read_by:
                folded[name] = folded[name] * weights[norm.gain][:, None]
            folded[norm.gain] = torch.ones_like(weights[norm.gain])
        return folded

    def check_folded(self, weights: Weights) -> None:
        """`ValueError` where a gain is not 1: the stream could not be turned."""
        for norm in self.norms:
            if not bool((weights[norm.gain] == 1).all()):
                raise ValueError(
                    f"{norm.gain} is not 1 everywhere: fold the norms first (`Symmetries.folded`)"
                )


def symmetries_of(architecture: Architecture) -> Symmetries | None:
    """The table of an architecture, which its method `symmetries` gives; None where there is none."""
    table: Callable[[], Symmetries] | None = getattr(architecture, "symmetries", None)
    return None if table is None else table()
