"""Windows of a long row of tokens: drawn anywhere in a span of it, or cut from its documents one after the other."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from polymorph.tasks.philox import philox

_HALF = 31  # bits; products of two halves fit an int64 with room for a sum
_LOW = (1 << _HALF) - 1


@dataclass(frozen=True)
class Windows:
    """Windows of equal length by where they begin in the row of tokens; `starts` is kept on the CPU.

    Nothing is gathered before it is asked for, so many steps of windows are as small as their numbers.
    """

    starts: Int[Tensor, "*step member row"]
    device: torch.device

    def __getitem__(self, index: int | slice) -> "Windows":
        return Windows(self.starts[index], self.device)


@dataclass(frozen=True)
class Row:
    """`length` tokens of a document from `start` on, and the token after each as its label.

    `place` is where in its document it begins.
    """

    document: int
    start: int
    length: int
    place: int


def draw(
    seeds: Int[Tensor, " members"], steps: Int[Tensor, " steps"], size: int, stream: int, places: int
) -> Int[Tensor, "steps members size"]:
    """Numbers uniform on 0…places−1, each a function of its (seed, stream, step, row) alone; on the CPU."""
    zero = torch.zeros((), dtype=torch.long)
    key = (seeds.cpu().long()[None, :, None], torch.tensor(stream))
    words = philox(key, (steps.cpu().long()[:, None, None], torch.arange(size), zero, zero))
    return _scaled(_wide(words), places)


def permutation(n: int, key: tuple[int, int], lane: int) -> Int[Tensor, " n"]:
    """An order of 0…n−1 drawn from the key; on the CPU."""
    zero = torch.zeros((), dtype=torch.long)
    words = philox(
        (torch.tensor(key[0]), torch.tensor(key[1])), (torch.arange(n), torch.tensor(lane), zero, zero)
    )
    return _wide(words).argsort(stable=True)


def _wide(words: tuple[Tensor, ...]) -> Tensor:
    """62 random bits from two words."""
    return ((words[0] >> 1) << _HALF) | (words[1] >> 1)


def _scaled(bits: Tensor, n: int) -> Tensor:
    """62 random bits scaled to 0…n−1, exactly ⌊bits · n / 2⁶²⌋: a corpus may be longer than 2³² tokens."""
    high, low = bits >> _HALF, bits & _LOW
    n_high, n_low = n >> _HALF, n & _LOW
    carried = high * n_low + low * n_high + (low * n_low >> _HALF)
    return high * n_high + (carried >> _HALF)


def rows_of(document: int, start: int, end: int, context: int, most: int) -> list[Row]:
    """At most `most` consecutive windows of the tokens start…end−1, of which the last is only ever a label."""
    begins = range(start, end - 1, context)[:most]
    return [Row(document, begin, min(context, end - 1 - begin), begin - start) for begin in begins]


def chunked(documents: Iterable[list[Row]], tokens: int) -> Iterator[list[Row]]:
    """Rows of whole documents, as many as take at most so many tokens once padded; at least one document."""
    chunk: list[Row] = []
    for rows in documents:
        if chunk and _padded(chunk + rows) > tokens:
            yield chunk
            chunk = []
        chunk = chunk + rows
    if chunk:
        yield chunk


def _padded(rows: list[Row]) -> int:
    return len(rows) * max(row.length for row in rows)


def gather(tokens: np.ndarray, starts: np.ndarray, length: int) -> Int[Tensor, "*window length"]:
    """The windows' tokens as int64, and no others: of a file that is mapped, only these are read."""
    places = starts[..., None] + np.arange(length)
    return torch.from_numpy(np.asarray(tokens[np.minimum(places, len(tokens) - 1)]).astype(np.int64))
