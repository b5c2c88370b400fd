"""Maps between the residual streams of two members, as frozen values."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class Map:
    """y = (x − mean_in) @ weight + mean_out, for rows x; leading axes hold one map each (pairs, sites).

    `name` is the family it was fitted in. The weights of isometries are orthogonal, so their inverse is the
    transpose. Two maps compose to one: (g @ f)(x) == g(f(x)).
    """

    name: str
    weight: Float[Tensor, "*batch d_in d_out"]
    mean_in: Float[Tensor, "*batch d_in"]
    mean_out: Float[Tensor, "*batch d_out"]

    def __post_init__(self) -> None:
        shapes = self.weight.shape[:-1], self.weight.shape[:-2] + self.weight.shape[-1:]
        if (self.mean_in.shape, self.mean_out.shape) != shapes:
            given = [tuple(t.shape) for t in (self.weight, self.mean_in, self.mean_out)]
            raise ValueError(f"weight, mean_in and mean_out do not fit together: {given}")

    def __call__(self, x: Float[Tensor, "*batch n d_in"]) -> Float[Tensor, "*batch n d_out"]:
        """The mapped rows, in the dtype of the map; leading axes broadcast against those of the map."""
        if x.ndim < 2 or x.shape[-1] != self.weight.shape[-2]:
            raise ValueError(f"a map of d = {self.weight.shape[-2]} takes [..., n, d], not {tuple(x.shape)}")
        centred = x.to(self.weight.dtype) - self.mean_in.unsqueeze(-2)
        return centred @ self.weight + self.mean_out.unsqueeze(-2)

    def __getitem__(self, index: Any) -> "Map":
        """The map at an index of the leading axes."""
        if self.weight.ndim == 2:
            raise IndexError("this map has no leading axis")
        return Map(self.name, self.weight[index], self.mean_in[index], self.mean_out[index])

    def __matmul__(self, first: "Map") -> "Map":
        """The map that applies `first` and then this one."""
        mean_out = (first.mean_out - self.mean_in).unsqueeze(-2) @ self.weight
        name = self.name if self.name == first.name else f"{self.name}∘{first.name}"
        return Map(name, first.weight @ self.weight, first.mean_in, mean_out.squeeze(-2) + self.mean_out)

    @property
    def inv(self) -> "Map":
        """The map back: inv(map(x)) = x. A weight that is not square or not of full rank is refused."""
        return Map(self.name, self._inverse_weight(), self.mean_out, self.mean_in)

    def to(self, target: torch.dtype | torch.device | str) -> "Map":
        """The same map in another dtype or on another device."""
        moved = (values.to(target) for values in (self.weight, self.mean_in, self.mean_out))
        return Map(self.name, *moved)

    def save(self, path: Path) -> None:
        """Write one safetensors file, the name in its metadata."""
        fields = ("weight", "mean_in", "mean_out")  # cloned, because safetensors refuses shared memory
        tensors = {key: getattr(self, key).clone(memory_format=torch.contiguous_format) for key in fields}
        save_file(tensors, path, metadata={"name": self.name})

    @classmethod
    def load(cls, path: Path) -> "Map":
        """Read what `save` wrote."""
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in ("weight", "mean_in", "mean_out")}
            return cls(file.metadata()["name"], **tensors)

    def _inverse_weight(self) -> Tensor:
        d_in, d_out = self.weight.shape[-2:]
        if d_in != d_out:
            raise ValueError(f"a map from {d_in} to {d_out} dimensions has no inverse")
        if _is_isometry(self.name):
            return self.weight.mT
        rank = int(torch.linalg.matrix_rank(self.weight).min())
        if rank < d_in:
            raise ValueError(f"the {self.name} map has rank {rank} of {d_in}: it has no inverse")
        return torch.linalg.inv(self.weight)


def stacked(maps: Sequence[Map]) -> Map:
    """Maps of one family as one map with a new first axis."""
    fields = ("weight", "mean_in", "mean_out")
    return Map(maps[0].name, *(torch.stack([getattr(one, key) for one in maps]) for key in fields))


def _is_isometry(name: str) -> bool:
    from polymorph.alignment.families import FAMILIES  # late: a family holds its fit, and a fit makes a `Map`

    return name in FAMILIES and FAMILIES[name].isometry
