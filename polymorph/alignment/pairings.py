"""Which token of the source goes with which of the target: the two shuffles that serve as controls."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


def chunk_generator(*key: int) -> torch.Generator:
    """The CPU generator of a key of whole numbers from 0 on, such as (seed, chunk), and of nothing else."""
    state = np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def permuted_tokens(n: int, generator: torch.Generator) -> Int[Tensor, "n"]:
    """Source tokens for the targets 0 … n − 1, in uniformly random order: nothing of the pairing is kept."""
    return torch.randperm(n, generator=generator)


def deranged_documents(
    document: Int[Tensor, "n"], position: Int[Tensor, "n"], generator: torch.Generator
) -> tuple[Int[Tensor, "kept"], Int[Tensor, "kept"]]:
    """(source, target) tokens at equal positions of different documents: only what position explains is kept.

    Documents are put in a random order and each takes its successor as source, so none keeps itself. A target
    whose partner is too short is left out; with fewer than two documents nothing is kept.
    """
    document, position = document.cpu(), position.cpu()
    _, index = document.unique(return_inverse=True)
    count, width = int(index.max()) + 1, int(position.max()) + 1
    if count < 2:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
    order = torch.randperm(count, generator=generator)
    partner = torch.empty_like(order).scatter_(0, order, order.roll(-1))
    token_at = _token_table(index, position, count, width)
    source = token_at[partner[index], position]
    target = torch.nonzero(source >= 0).squeeze(1)
    return source[target], target


def _token_table(
    index: Tensor, position: Tensor, documents: int, width: int
) -> Int[Tensor, "documents width"]:
    """The token at each (document, position), −1 where there is none."""
    if int(position.min()) < 0 or len(torch.unique(index * width + position)) != len(index):
        raise ValueError("a position is negative, or a (document, position) occurs twice in a chunk")
    table = torch.full((documents, width), -1, dtype=torch.long)
    table[index, position] = torch.arange(len(index))
    return table
