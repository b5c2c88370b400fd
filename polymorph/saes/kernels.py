"""The passes of `passes.py` as C++, compiled by the compiler of the machine.

Inductor would compile the same passes in ten seconds and a half; g++ takes a third of one, and can choose the
strongest features of a token in a loop of comparisons, for which PyTorch has no operation.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from polymorph.kernels.native import library
from polymorph.saes.passes import Joined, Masked

SOURCE = Path(__file__).with_name("kernels.cpp")


@cache
def compiled() -> "CompiledPasses":
    """The compiled passes; `CompileError` if there is no compiler, or it fails."""
    return CompiledPasses(library(SOURCE))


class CompiledPasses:
    """Each pass in one loop, on one thread, without Python's lock; tensors on the CPU, contiguous."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def rectified(self, pre: Tensor, bias: Tensor) -> Tensor:
        pre = pre.contiguous()
        self._call("rectified", pre, bias.contiguous(), *_shape(pre))
        return pre

    def masked(self, features: Tensor, gradient: Tensor, price: Tensor | None) -> Masked:
        features, gradient = features.contiguous(), gradient.contiguous()
        prices = torch.zeros(features.shape[-1]) if price is None else price.contiguous()
        sums = _sums(3, features)
        self._call("masked", features, gradient, prices, sums, *_shape(features))
        return Masked(gradient, *sums)

    def split(self, pre: Tensor, gate_bias: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        pre = pre.contiguous()
        features, gates = torch.empty_like(pre), torch.empty_like(pre)
        vectors = torch.stack([gate_bias, scale, bias])
        self._call("split", pre, vectors, features, gates, *_shape(pre))
        return features, gates

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
        given = [each.contiguous() for each in (pre, scale, features, gates, by_features, by_gates, price)]
        sums = _sums(5, pre)
        self._call("joined", *given, sums, *_shape(pre))
        return Joined(given[0], *sums)

    def strongest(self, pre: Tensor, norms: Tensor, k: int, allowed: Tensor | None) -> Tensor:
        pre, norms = pre.contiguous(), norms.contiguous()
        features = torch.empty_like(pre)
        among = torch.ones(pre.shape[-1], dtype=torch.bool) if allowed is None else allowed.contiguous()
        rectified = ctypes.c_int32(allowed is None)
        self._call("strongest", pre, norms, among, features, *_shape(pre), ctypes.c_int64(k), rectified)
        return features

    def _call(self, name: str, first: Tensor, *rest: "Tensor | ctypes._SimpleCData[int]") -> None:
        kind = str(first.dtype).removeprefix("torch.")
        given = [
            ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor) else one for one in (first, *rest)
        ]
        getattr(self._library, f"{name}_{kind}")(*given)


def _sums(n: int, like: Tensor) -> Tensor:
    return torch.empty(n, like.shape[-1])


def _shape(x: Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64]:
    return ctypes.c_int64(x.shape[0]), ctypes.c_int64(x.shape[1])
