"""When features fire: the activations of an SAE, and their correlation over tokens that come in chunks."""

import math

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from polymorph.alignment.moments import ROUNDING
from polymorph.saes.trained import TrainedSAE

AT_ONCE = 1024  # tokens in float64 at a time: enough for full-speed products
PAIRED_AT_ONCE = 256  # where there are no products: few enough to stay in the cache


@torch.no_grad()
def fire(trained: TrainedSAE, x: Float[Tensor, "n d"]) -> Float[Tensor, "n features"]:
    """The activations of every feature, in the dtype and on the device of the SAE.

    `ValueError` for activations of another width than the SAE reads.
    """
    if x.ndim != 2 or x.shape[-1] != trained.sae.cfg.d_in:
        raise ValueError(
            f"the SAE {trained.family} reads [n, {trained.sae.cfg.d_in}], not activations {tuple(x.shape)}"
        )
    return trained.sae.encode(x.to(trained.sae.W_dec.device))


class Correlation:
    """Pearson correlation between features of x and features of y on the same tokens, streaming, in float64.

    With one number of features, feature k of x goes with feature k of y [k]; with two, every one with every
    one [f g]. It holds these numbers and a few more for each feature, whatever the number of tokens: 32 MiB
    for 2048 features a side. Chunks are merged as by Chan et al. (1983), so their sizes do not matter.
    """

    def __init__(self, f: int, g: int | None = None, device: torch.device | str = "cpu") -> None:
        self.every = g is not None
        sizes = (f, f if g is None else g)
        self.n = 0
        self._mean = [torch.zeros(size, dtype=torch.float64, device=device) for size in sizes]
        self._squares = [torch.zeros_like(mean) for mean in self._mean]
        self._live = [torch.zeros_like(mean, dtype=torch.bool) for mean in self._mean]
        self._cross = torch.zeros(sizes if self.every else sizes[:1], dtype=torch.float64, device=device)

    def update(self, x: Float[Tensor, "n f"], y: Float[Tensor, "n g"]) -> None:
        """Add tokens; `ValueError` if x and y differ in their number, or for other features than before."""
        wanted = [len(mean) for mean in self._mean]
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or [x.shape[1], y.shape[1]] != wanted:
            raise ValueError(
                f"{tuple(x.shape)} and {tuple(y.shape)}: the same tokens of {wanted[0]} and {wanted[1]} features"
            )
        tokens = AT_ONCE if self.every else PAIRED_AT_ONCE
        for some_x, some_y in zip(x.split(tokens), y.split(tokens), strict=True):
            if len(some_x):
                rows = [self._absorb(side, values) for side, values in enumerate((some_x, some_y))]
                if self.every:
                    self._cross.addmm_(rows[0].mT, rows[1])
                else:
                    self._cross += (rows[0] * rows[1]).sum(0)
                self.n += len(some_x)

    def result(self) -> Float64[Tensor, "f *g"]:
        """The correlations; 0 where a feature is constant, a dead one among them."""
        if self.n == 0:
            raise ValueError("no tokens were given: there is no correlation")
        x, y = (self._deviation(side) for side in (0, 1))
        scale = x.unsqueeze(-1) * y if self.every else x * y
        return torch.where(scale > 0, self._cross / scale, 0.0).clamp(-1, 1)

    @property
    def live_x(self) -> Bool[Tensor, " f"]:
        """Whether a feature of x was other than 0 on any token."""
        return self._live[0]

    @property
    def live_y(self) -> Bool[Tensor, " g"]:
        """Whether a feature of y was other than 0 on any token."""
        return self._live[1]

    @property
    def live(self) -> Bool[Tensor, " f"]:
        """Of features that go one with one: whether they fired on both sides."""
        return self.live_x & self.live_y

    def _absorb(self, side: int, values: Tensor) -> Tensor:
        """Rows whose products add up to what this chunk adds: the centred tokens, and the move of the mean."""
        values = values.to(self._cross)
        n, mean = len(values), values.mean(0)
        move = mean - self._mean[side]
        rows = torch.cat([values - mean, math.sqrt(self.n * n / (self.n + n)) * move[None]])
        self._live[side] |= (values != 0).any(0)
        self._squares[side] += rows.square().sum(0)
        self._mean[side] += n / (self.n + n) * move
        return rows

    def _deviation(self, side: int) -> Tensor:
        """√Σ (x − mean)² of each feature; exactly 0 where it is no more than rounding of the mean."""
        squares, mean = self._squares[side], self._mean[side]
        return torch.where(squares > self.n * (ROUNDING * mean).square(), squares, 0.0).sqrt()
