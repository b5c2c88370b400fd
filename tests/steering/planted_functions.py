"""Members whose causal directions are known: linear readers of a residual stream that a table of tokens writes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from polymorph.alignment.haar import haar
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import pairs_of
from polymorph.models.activations import ModelActivations
from polymorph.models.functions import Functions
from polymorph.steering.request import Steering
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.task import Chunk

CPU = torch.device("cpu")
SITE, SITES = "blocks.1.hook_resid_mid", ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_mid"]
D, VOCAB, KINDS, SIDES, LENGTH = 24, 240, 4, 3, 12
CAUSAL = 0
"""The canonical axis along which kind 1 lies from kind 0."""


def table(seed: int = 0) -> Tensor:
    """What every token writes, in canonical axes [VOCAB D]: kinds on axes 0 … 3, sides on 4 … 6, noise everywhere.

    Kinds 0 and 1 lie on either side of axis 0 alone, so that axis is the contrast of the two.
    """
    x = 0.3 * torch.randn(VOCAB, D, generator=torch.Generator().manual_seed(seed))
    x[:, :7] *= 0.1
    kind, side = kinds(), sides()
    x[kind == 1, CAUSAL] += 1.0
    x[kind == 0, CAUSAL] -= 1.0
    for one in (2, 3):
        x[kind == one, one] += 1.0
    for one in range(SIDES):
        x[side == one, 4 + one] += 1.0
    return x


def kinds() -> Tensor:
    return torch.arange(VOCAB) % KINDS


def sides() -> Tensor:
    return torch.arange(VOCAB) // KINDS % SIDES


@dataclass(frozen=True)
class Member:
    """Writes the table through a matrix and reads it back; `gain` differs between tokens, so that effects do."""

    written: Tensor
    read: Tensor
    gain: Tensor

    def run_with_hooks(self, tokens: Tensor, *, fwd_hooks: Any = ()) -> Mapping[str, Tensor]:
        x = self.written[tokens]
        for site in SITES:
            for name, hook in fwd_hooks:
                if name == site:
                    changed = hook(x, hook=None)
                    x = x if changed is None else changed
        back = (x @ self.read) * self.gain[tokens][..., None]
        kind = torch.stack([-back[..., CAUSAL], back[..., CAUSAL], back[..., 2], back[..., 3]], -1)
        return {"kind": 2 * kind, "side": 2 * back[..., 4:7]}


def member(matrix: Tensor, seed: int = 0, noise: float = 0.0) -> Member:
    """Reads with the inverse of what it writes with: the same function, whatever the matrix."""
    generator = torch.Generator().manual_seed(seed + 1000)
    written = (table() @ matrix.float()) + noise * torch.randn(VOCAB, D, generator=generator)
    gain = 0.6 + 0.8 * torch.rand(VOCAB, generator=torch.Generator().manual_seed(5))
    return Member(written, torch.linalg.inv(matrix.double()).float(), gain)


def rotations(members: int, seed: int = 0) -> list[Tensor]:
    return list(haar(D, members, torch.Generator().manual_seed(seed)))


def flipped() -> Tensor:
    """The canonical axes, the causal one reversed."""
    matrix = torch.eye(D, dtype=torch.float64)
    matrix[CAUSAL, CAUSAL] = -1
    return matrix


@dataclass(frozen=True)
class Tokens:
    """A task of random tokens, LENGTH a document; labels are the kind and the side of each."""

    distributions: Sequence[str] = ("train",)

    def probe(self, probe: ProbeConfig, split: str, device: torch.device) -> Iterator[Chunk]:
        documents = getattr(probe, split)
        drawn = torch.Generator().manual_seed(10 * probe.seed + (split == "eval"))
        tokens = torch.randint(VOCAB, (512, LENGTH), generator=drawn)[:documents]
        document = torch.arange(documents).repeat_interleave(LENGTH)
        place = torch.arange(LENGTH).repeat(documents)
        labels = {"kind": kinds()[tokens], "side": sides()[tokens]}
        yield Chunk((tokens,), labels, torch.ones_like(tokens, dtype=torch.bool), document, place, place)


def functions(members: Sequence[Member], fit: int = 80, eval: int = 60) -> Functions:
    task: Any = Tokens()
    models: Any = list(members)
    return Functions(models, SITES, task, ProbeConfig(fit, eval), CPU)


CONTRAST = {"name": "kind", "positive": {"kind": 1}, "negative": {"kind": 0}}


def evidence(members: Sequence[Member], contrasts: Sequence[Any] = (CONTRAST,), **options: Any) -> Evidence:
    made = functions(members, **options)
    source = ModelActivations(made.models, SITES, made.task, made.probe, CPU)
    ends = [(seed, 7) for seed in range(len(members))]
    steering = replace(Steering.of(list(contrasts)), doses=(1.0, 2.0))
    return Evidence(
        "toy",
        ends,
        pairs_of(ends),
        source,
        blocks=8,
        functions=lambda asked: made,
        options={"steering": steering},
    )
