"""Sequences a, a + b, a + 2b, … modulo the vocabulary, as a function of (seed, stream, step)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.counting import CountingConfig
from polymorph.tasks.task import SPLITS, Chunk, Inputs, Split

STREAMS = {"train": 0, "evaluation": 1, "sae": 2, "fit": 3, "eval": 4}


class Counting:
    """Implements `Task`."""

    distributions: Sequence[str] = ("evaluation",)
    evaluated_at_once = 64
    headline = "tok"

    def __init__(self, config: CountingConfig) -> None:
        self.config = config
        self.classes = {"tok": config.vocab_size}

    def check(self, probe: ProbeConfig, uses: Sequence[str], d_vocab: int) -> None:
        assert self.config.vocab_size <= d_vocab

    def _drawn(self, stream: str, seed: int, step: int, size: int) -> Tensor:
        random = torch.Generator().manual_seed((seed * 1009 + step) * 7 + STREAMS[stream])
        first, by = torch.randint(1, 1000, (2, size), generator=random)
        at = torch.arange(self.config.context + 1)
        return (first[:, None] + (1 + by[:, None] % 4) * at) % self.config.vocab_size

    def batches(self, seeds: Tensor, steps: Tensor, size: int) -> Tensor:
        drawn = [
            [self._drawn("train", seed, step, size) for seed in seeds.tolist()] for step in steps.tolist()
        ]
        return torch.stack([torch.stack(members) for members in drawn]).to(seeds.device)

    def inputs(self, batch: Tensor, groups: int = 1, static: bool = False) -> Inputs:
        return Inputs((batch[..., :-1].contiguous(),), {"tok": batch[..., 1:].contiguous()})

    def flat_inputs(self, batch: Tensor) -> Inputs:
        return self.inputs(batch)

    def evaluation(self, distribution: str, step: int, size: int, device: torch.device) -> Any:
        return self._drawn(distribution, 0, step, size)[None].to(device)

    def held_out(self, distribution: str, sequences: int, device: torch.device) -> Iterator[Chunk]:
        yield self._chunk(self._drawn(distribution, 0, 0, sequences), device)

    def probe(self, probe: ProbeConfig, split: Split, device: torch.device) -> Iterator[Chunk]:
        assert split in SPLITS
        yield self._chunk(self._drawn(split, probe.seed, 0, getattr(probe, split)), device)

    def fresh(self, seed: int, step: int, tokens: int, device: torch.device) -> Chunk:
        return self._chunk(self._drawn("sae", seed, step, -(-tokens // self.config.context)), device)

    def _chunk(self, drawn: Tensor, device: torch.device) -> Chunk:
        drawn = drawn.to(device)
        read, labels = drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous()
        size, context = read.shape
        position = torch.arange(context, device=device).repeat(size)
        document = torch.arange(size, device=device).repeat_interleave(context)
        kept = torch.ones_like(read, dtype=torch.bool)
        return Chunk((read,), {"tok": labels}, kept, document, position, position)
