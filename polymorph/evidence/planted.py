"""Cohorts whose truth is known: what every statistic must find, and what it must refuse.

Members are copies of one latent signal z [tokens, d] under known maps, each with a mean and noise of its own.
Tokens of a document are correlated, so that errors that forget documents are seen to be too small. Generated
in memory, chunk by chunk, as a function of the seed; nothing is trained and nothing is written.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.checks import nearest
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.models.activations import Activations, Split

SITE = "planted"
_DOCUMENTS_AT_ONCE = 256
_WITHIN_DOCUMENT = 0.3  # share of the latent variance that all tokens of a document have in common


@dataclass(frozen=True)
class Truth:
    """What each member does with the latent signal: x_i = z_i W_i + mean_i + noise."""

    weights: Float[Tensor, "members d d"]
    means: Float[Tensor, "members d"]
    spectrum: Float[Tensor, "d"]
    """Standard deviation of each latent dimension."""
    own: Float[Tensor, "d"]
    """1 for latent dimensions that every member draws for itself, 0 for those that are shared."""
    linear: float = 1.0
    """Share of the variance of z_i that is z; the rest are products of two dimensions of z, others in each member."""

    def rotation(self, i: int, j: int) -> Float[Tensor, "d d"]:
        """R of i → j where the weights are orthogonal."""
        return self.weights[i].T @ self.weights[j]


@dataclass(frozen=True)
class Planted:
    """A planted cohort as a source of activations, at one site."""

    kind: str
    config: PlantedConfig = field(default_factory=PlantedConfig)
    sites: Sequence[str] = (SITE,)
    again: bool = False
    """Whether every member is followed by a second reading of it: the same signal, with fresh noise."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"planted:{self.kind}{nearest(self.kind, KINDS)}: one of {', '.join(KINDS)}")
        for key in ("rank", "pinned", "axes"):
            if key in _USES.get(self.kind, ()) and getattr(self.config, key) > self.config.d:
                raise ValueError(
                    f"planted.{key}={getattr(self.config, key)}: from 1 to planted.d={self.config.d}"
                )

    @property
    def name(self) -> str:
        return f"planted-{self.kind}"

    @property
    def documents(self) -> Mapping[Split, int]:
        return {"fit": self.config.documents, "eval": self.config.documents}

    def identity(self) -> dict[str, Any]:
        """All that decides the tokens."""
        return {"kind": self.kind, **asdict(self.config)}

    @cached_property
    def truth(self) -> Truth:
        """The maps and the latent spectrum, drawn from the seed."""
        generator = _generator(self.config.seed, 0)
        weights, spectrum, own = KINDS[self.kind](self.config, generator)
        means = 0.5 * _normal(generator, self.config.members, self.config.d)
        linear = self.config.share if self.kind == "bent" else 1.0
        return Truth(weights, means, spectrum, own, linear)

    def chunks(self, split: Split) -> Iterator[Activations]:
        """float64 activations [members n d] of whole documents."""
        for first in range(0, self.config.documents, _DOCUMENTS_AT_ONCE):
            count = min(_DOCUMENTS_AT_ONCE, self.config.documents - first)
            generator = _generator(self.config.seed, 1 + (split == "eval"), first)
            document = torch.arange(first, first + count).repeat_interleave(self.config.tokens)
            position = torch.arange(self.config.tokens).repeat(count)
            yield Activations({SITE: self._values(generator, count)}, document, position)

    def _values(self, generator: torch.Generator, documents: int) -> Float[Tensor, "members n d"]:
        truth, members = self.truth, self.config.members
        shared = self._latent(generator, documents)
        each = [
            torch.where(truth.own.bool(), self._latent(generator, documents), shared) for _ in range(members)
        ]
        if truth.linear < 1:
            each = [_bend(z, 1 + member, truth.linear) for member, z in enumerate(each)]
        signal = (torch.stack(each) * truth.spectrum) @ truth.weights
        size = (truth.spectrum[:, None] * truth.weights).square().mean((-2, -1), keepdim=True)
        size = (size * self.config.d).sqrt()  # root mean square over the dimensions of a member
        readings = 1 + self.again
        noise = [self.config.noise * size * _normal(generator, *signal.shape) for _ in range(readings)]
        return torch.cat([signal + truth.means[:, None] + each for each in noise])

    def _latent(self, generator: torch.Generator, documents: int) -> Float[Tensor, "n d"]:
        """Unit variance in every dimension: of the document, of the position, and of the token."""
        c = self.config
        by_document = _normal(generator, documents, c.d).repeat_interleave(c.tokens, 0)
        by_token = _normal(generator, documents * c.tokens, c.d)
        free = math.sqrt(_WITHIN_DOCUMENT) * by_document + math.sqrt(1 - _WITHIN_DOCUMENT) * by_token
        by_position = _normal(_generator(c.seed, 3), c.tokens, c.d).repeat(documents, 1)
        return math.sqrt(1 - c.position) * free + math.sqrt(c.position) * by_position


Made = tuple[Tensor, Tensor, Tensor]
"""Weights [members d d], spectrum [d] and which latent dimensions are each member's own [d]."""


def _rotated(c: PlantedConfig, g: torch.Generator) -> Made:
    return _turns(c, g), _full(c), torch.zeros(c.d)


def _reflected(c: PlantedConfig, g: torch.Generator) -> Made:
    return _turns(c, g, odd=-1), _full(c), torch.zeros(c.d)


def _rotated_low_rank(c: PlantedConfig, g: torch.Generator) -> Made:
    return _turns(c, g), _low_rank(c), torch.zeros(c.d)


def _same_basis_low_rank(c: PlantedConfig, g: torch.Generator) -> Made:
    return _turn(g, c.d).expand(c.members, -1, -1), _low_rank(c), torch.zeros(c.d)


def _same_basis(c: PlantedConfig, g: torch.Generator) -> Made:
    return _turn(g, c.d).expand(c.members, -1, -1), _full(c), torch.zeros(c.d)


def _affine(c: PlantedConfig, g: torch.Generator) -> Made:
    """W_i = H diag(exp l_i) Q_i with l_i orthogonal cosines: every two members differ by the same amount.

    The singular values of i → j are exp(l_j − l_i). Their logarithms have the variance (log condition)²/12, that
    of logarithms evenly spaced over the condition, and about its range.
    """
    place = (torch.arange(c.d, dtype=torch.float64) + 0.5) * math.pi / c.d
    waves = [math.log(c.condition) / math.sqrt(12) * torch.cos((1 + i) * place) for i in range(c.members)]
    start, turns = _turn(g, c.d), _turns(c, g)
    weights = [(start * wave.exp()) @ turn for wave, turn in zip(waves, turns, strict=True)]
    return torch.stack(weights), torch.ones(c.d).double(), torch.zeros(c.d)


def _similarity(c: PlantedConfig, g: torch.Generator) -> Made:
    sizes = c.scale ** torch.arange(c.members, dtype=torch.float64)
    return sizes[:, None, None] * _turns(c, g), _full(c), torch.zeros(c.d)


def _unrelated(c: PlantedConfig, g: torch.Generator) -> Made:
    return _turns(c, g), _full(c), torch.ones(c.d)


def _pinned(c: PlantedConfig, g: torch.Generator) -> Made:
    """W_i = Bᵀ diag(I, H_i) B: no member turns the first k directions of the basis B."""
    basis, free = _turn(g, c.d), c.d - c.pinned
    blocks = [torch.block_diag(torch.eye(c.pinned).double(), _turn(g, free)) for _ in range(c.members)]
    start = _turn(g, c.d)  # the latent axes are no special directions
    return torch.stack([start @ basis.T @ block @ basis for block in blocks]), _full(c), torch.zeros(c.d)


def _privileged(c: PlantedConfig, g: torch.Generator) -> Made:
    """W_i = S diag(signed permutation, H_i): k coordinate axes are only permuted and flipped."""
    start = _turn(g, c.d)
    blocks = [
        torch.block_diag(_signed_permutation(g, c.axes), _turn(g, c.d - c.axes)) for _ in range(c.members)
    ]
    return torch.stack([start @ block for block in blocks]), _full(c), torch.zeros(c.d)


def _block_diagonal(c: PlantedConfig, g: torch.Generator) -> Made:
    half = c.d // 2
    start = _turn(g, c.d)
    blocks = [torch.block_diag(_turn(g, half), _turn(g, c.d - half)) for _ in range(c.members)]
    return torch.stack([start @ block for block in blocks]), _full(c), torch.zeros(c.d)


def _partial(c: PlantedConfig, g: torch.Generator) -> Made:
    """A rotated copy in half of the latent dimensions, which hold `share` of the variance."""
    half = c.d // 2
    variance = torch.cat(
        [
            torch.full((half,), c.share / half).double(),
            torch.full((c.d - half,), (1 - c.share) / (c.d - half)).double(),
        ]
    )
    own = (torch.arange(c.d) >= half).double()
    return _turns(c, g), (c.d * variance).sqrt(), own


def _bent(c: PlantedConfig, g: torch.Generator) -> Made:
    """A rotated copy in `share` of the variance; the rest is a function of the same signal, and linear in nothing."""
    if c.d <= 2 * c.members:
        raise ValueError(f"planted:bent takes planted.d above {2 * c.members} for {c.members} members")
    return _turns(c, g), _full(c), torch.zeros(c.d)


KINDS: dict[str, Callable[[PlantedConfig, torch.Generator], Made]] = {
    "rotated": _rotated,
    "reflected": _reflected,
    "rotated_low_rank": _rotated_low_rank,
    "same_basis": _same_basis,
    "same_basis_low_rank": _same_basis_low_rank,
    "block_diagonal": _block_diagonal,
    "affine": _affine,
    "similarity": _similarity,
    "unrelated": _unrelated,
    "pinned": _pinned,
    "privileged": _privileged,
    "partial": _partial,
    "bent": _bent,
}
_USES = {
    "rotated_low_rank": ("rank",),
    "same_basis_low_rank": ("rank",),
    "pinned": ("pinned",),
    "privileged": ("axes",),
}


def _bend(z: Float[Tensor, "n d"], offset: int, linear: float) -> Float[Tensor, "n d"]:
    """√linear z + √(1 − linear) z_k z_{k + offset}: products of other pairs are uncorrelated with these and with z."""
    return math.sqrt(linear) * z + math.sqrt(1 - linear) * z * z.roll(-offset, -1)


def _full(c: PlantedConfig) -> Tensor:
    """Standard deviations of a full-rank signal: variances from 1 to a quarter."""
    return torch.linspace(1, 0.5, c.d, dtype=torch.float64)


def _low_rank(c: PlantedConfig) -> Tensor:
    spectrum = torch.zeros(c.d, dtype=torch.float64)
    spectrum[: c.rank] = torch.linspace(1, 0.5, c.rank, dtype=torch.float64)
    return spectrum


def _turns(c: PlantedConfig, g: torch.Generator, odd: int = 1) -> Float[Tensor, "members d d"]:
    """A rotation for every member; every second one, from the second on, with the determinant `odd`."""
    return torch.stack([_turn(g, c.d, odd if i % 2 else 1) for i in range(c.members)])


def _turn(generator: torch.Generator, d: int, determinant: int = 1) -> Float[Tensor, "d d"]:
    """A uniformly random orthogonal matrix of the determinant; of dimension 0, the empty one."""
    Q, R = torch.linalg.qr(_normal(generator, d, d))
    Q = Q * R.diagonal().sign()
    if d and float(torch.linalg.det(Q)) * determinant < 0:
        Q[:, 0] = -Q[:, 0]
    return Q


def _signed_permutation(generator: torch.Generator, d: int) -> Float[Tensor, "d d"]:
    signs = torch.randint(2, (d,), generator=generator).double() * 2 - 1
    return torch.eye(d, dtype=torch.float64)[torch.randperm(d, generator=generator)] * signs


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _generator(*key: int) -> torch.Generator:
    state = np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
