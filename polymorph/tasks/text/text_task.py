"""Text as a task: every position's label is the next token of it.

Documents are told apart into five splits once, when the text is prepared; here it is a row of tokens in which the
documents of one split lie together. Training, evaluation and the SAEs read windows drawn anywhere in their span;
the probe reads whole documents, cut into windows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

from polymorph.checks import one_of
from polymorph.errors import RequestError
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.task import IGNORED, SPLITS, Chunk, Inputs, Split
from polymorph.tasks.text import windows
from polymorph.tasks.text.config import TextConfig, TextSplits
from polymorph.tasks.text.windows import Row, Windows

CHUNK_TOKENS = 4096  # of one chunk of the probe: 0.8 GB of float32 logits over 50,304 tokens

# A stream is the second word of the generator's key: draws for different purposes never meet.
STREAMS = {"train": 0, "evaluation": 1, "probe": 2, "sae": 3}


@dataclass(frozen=True)
class Tokens:
    """A prepared text, read-only; every document ends with the token `eos`, which is nowhere else.

    `tokens` is a row of uint16 or uint32, mapped from a file or in memory; document i is
    `tokens[starts[i]:starts[i + 1]]`. `splits` says of each split its first document and one past its last.
    """

    tokens: np.ndarray
    starts: np.ndarray
    splits: Mapping[str, tuple[int, int]]
    vocab_size: int
    eos: int
    facts: Mapping[str, Any]
    tokenizer: Path

    def documents(self, split: str) -> int:
        first, end = self.splits[split]
        return end - first

    def span(self, split: str) -> tuple[int, int]:
        """The split's first token, and one past its last."""
        first, end = self.splits[split]
        return int(self.starts[first]), int(self.starts[end])


class Text:
    """The task, opened: implements `Task`. Tokens are gathered on the CPU and given on the device asked for."""

    distributions: Sequence[str] = ("evaluation",)
    headline = "tok"

    def __init__(self, config: TextConfig, tokens: Tokens) -> None:
        self.config = config
        self.tokens = tokens

    @property
    def evaluated_at_once(self) -> int:
        return max(1, CHUNK_TOKENS // self.config.context)

    @property
    def classes(self) -> dict[str, int]:
        """The one head, and how many classes it has."""
        return {"tok": self.tokens.vocab_size}

    def check(self, probe: ProbeConfig, uses: Sequence[str], d_vocab: int) -> None:
        for split in SPLITS:
            self._check_documents(probe, split)
        for use in uses:
            self._places(use)
        largest = int(self.tokens.tokens.max()) if len(self.tokens.tokens) else 0
        if largest >= d_vocab:
            raise RequestError(
                f"task.tokenizer: the text has the token {largest}, and the models know {d_vocab} from 0 on: it is "
                "the tokenizer of other models"
            )

    def batches(self, seeds: Int[Tensor, " members"], steps: Int[Tensor, " steps"], size: int) -> Windows:
        """Windows of the training span; its first k windows do not depend on `size`."""
        return self._drawn("train", seeds, steps, size)

    def inputs(self, batch: Windows, groups: int = 1, static: bool = False) -> Inputs:
        """Windows are of one length, so there is nothing to group and nothing that changes."""
        tokens, labels = self._read(batch)
        return Inputs((tokens,), {"tok": labels})

    def flat_inputs(self, batch: Windows) -> Inputs:
        return self.inputs(batch)

    def evaluation(self, distribution: str, step: int, size: int, device: torch.device) -> Windows:
        """Windows of the evaluation span."""
        one_of("distribution", distribution, tuple(self.distributions))
        seeds = torch.zeros(1, dtype=torch.long, device=device)
        return self._drawn("evaluation", seeds, torch.tensor([step]), size)[0]

    def held_out(self, distribution: str, sequences: int, device: torch.device) -> Iterator[Chunk]:
        """A window of the evaluation span is a document."""
        for step, first in enumerate(range(0, sequences, self.evaluated_at_once)):
            size = min(self.evaluated_at_once, sequences - first)
            yield self._whole(self.evaluation(distribution, step, size, device), first)

    def probe(self, probe: ProbeConfig, split: Split, device: torch.device) -> Iterator[Chunk]:
        """Documents of the split in an order drawn from the probe's seed, each cut into windows from its beginning.

        The last window of a document may be shorter; the end of a document is only ever a label.
        """
        wanted, there = self._check_documents(probe, split)
        order = windows.permutation(there, (probe.seed, STREAMS["probe"]), TextSplits.index(split))
        first = self.tokens.splits[split][0]
        documents = (self._rows(number, first + int(order[number])) for number in range(wanted))
        for rows in windows.chunked(documents, CHUNK_TOKENS):
            yield self._chunk(rows, device)

    def fresh(self, seed: int, step: int, tokens: int, device: torch.device) -> Chunk:
        """Windows of the sae span, in which neither training, nor evaluation, nor the probe has a document."""
        seeds, size = torch.tensor([seed], device=device), -(-tokens // self.config.context)
        return self._whole(self._drawn("sae", seeds, torch.tensor([step]), size)[0], 0)

    def prompts(self, texts: Sequence[str], device: torch.device) -> Chunk:
        """Texts as documents, a row each in their order; one that is longer than the context is read from its end.

        `RequestError` for a text without a token.
        """
        each = [ids[-self.config.context :] for ids in self._encoded(texts)]
        lengths = torch.tensor([len(ids) for ids in each])
        at = torch.arange(int(lengths.max())).expand(len(each), -1)
        kept = at < lengths[:, None]
        tokens = torch.full(kept.shape, self.tokens.eos)
        tokens[kept] = torch.tensor([token for ids in each for token in ids])
        labels = tokens.roll(-1, 1).masked_fill(at + 1 >= lengths[:, None], IGNORED)
        seen = at[kept].to(device)
        return Chunk(
            arguments=(tokens.to(device),),
            labels={"tok": labels.to(device)},
            kept=kept.to(device),
            document=torch.arange(len(each)).repeat_interleave(lengths).to(device),
            position=seen,
            seen=seen,
        )

    def first_tokens(self, words: Sequence[str]) -> list[int]:
        """The token that each word begins with; a word inside a sentence begins with its space."""
        return [ids[0] for ids in self._encoded(words)]

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Without any token put around a text."""
        tokenizer = Tokenizer.from_file(str(self.tokens.tokenizer))
        tokenizer.encode_special_tokens = True
        found = [one.ids for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        if not all(found):
            raise RequestError(f"text {texts[found.index([])]!r} has no token")
        return found

    def _whole(self, batch: Windows, first: int) -> Chunk:
        """The windows of one member, numbered from `first` on, of which every token is kept."""
        read, labels = (values[0] for values in self._read(batch))
        size, context = read.shape
        position = torch.arange(context, device=read.device).repeat(size)
        return Chunk(
            arguments=(read,),
            labels={"tok": labels},
            kept=torch.ones_like(read, dtype=torch.bool),
            document=first + torch.arange(size, device=read.device).repeat_interleave(context),
            position=position,
            seen=position,
        )

    def _check_documents(self, probe: ProbeConfig, split: Split) -> tuple[int, int]:
        wanted, there = getattr(probe, split), self.tokens.documents(split)
        if wanted > there:
            raise RequestError(
                f"probe.{split}={wanted}: the text has {there:,} documents in its split {split}; give more text, "
                f"a larger task.shares.{split}, or at most probe.{split}={there}"
            )
        return wanted, there

    def _drawn(self, split: str, seeds: Tensor, steps: Tensor, size: int) -> Windows:
        start, places = self._places(split)
        drawn = windows.draw(seeds, steps, size, STREAMS[split], places)
        return Windows(start + drawn, seeds.device)

    def _places(self, split: str) -> tuple[int, int]:
        """Where the split begins, and how many windows may be drawn from it."""
        start, end = self.tokens.span(split)
        places = end - start - self.config.context
        if places < 1:
            raise RequestError(
                f"task.context={self.config.context}: a window takes {self.config.context + 1} tokens, and the "
                f"text has {end - start:,} in its split {split}; give more text, a larger task.shares.{split}, or "
                "a smaller task.context"
            )
        return start, places

    def _read(self, batch: Windows) -> tuple[Tensor, Tensor]:
        """The windows' tokens and the tokens after them."""
        found = windows.gather(self.tokens.tokens, batch.starts.numpy(), self.config.context + 1)
        found = found.to(batch.device)
        return found[..., :-1].contiguous(), found[..., 1:].contiguous()

    def _rows(self, number: int, document: int) -> list[Row]:
        start, end = int(self.tokens.starts[document]), int(self.tokens.starts[document + 1])
        return windows.rows_of(number, start, end, self.config.context, self.config.windows)

    def _chunk(self, rows: list[Row], device: torch.device) -> Chunk:
        starts = np.array([row.start for row in rows])
        lengths = torch.tensor([row.length for row in rows])
        width = int(lengths.max())
        at = torch.arange(width).expand(len(rows), width)
        kept = at < lengths[:, None]
        found = windows.gather(self.tokens.tokens, starts, width + 1)
        tokens = found[:, :-1].masked_fill(~kept, self.tokens.eos)
        labels = found[:, 1:].masked_fill(~kept, IGNORED)
        return Chunk(
            arguments=(tokens.to(device),),
            labels={"tok": labels.to(device)},
            kept=kept.to(device),
            document=torch.tensor([row.document for row in rows]).repeat_interleave(lengths).to(device),
            position=(torch.tensor([row.place for row in rows])[:, None] + at)[kept].to(device),
            seen=at[kept].to(device),
        )
