"""Steering vectors: the difference of two means of the residual stream, from fit documents or from prompts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polymorph.checks import nearest
from polymorph.errors import RequestError
from polymorph.models.functions import Functions
from polymorph.steering.contrasts import (
    LEAST,
    POSITION,
    Condition,
    LabelContrast,
    PromptContrast,
    Target,
)
from polymorph.tasks.task import IGNORED, Chunk, Task


@runtime_checkable
class ReadsPrompts(Protocol):
    """A task whose inputs are texts."""

    def prompts(self, texts: Sequence[str], device: torch.device) -> Chunk:
        """A text a document, in their order."""
        ...

    def first_tokens(self, words: Sequence[str]) -> list[int]:
        """The token that each word begins with."""
        ...


def fulfils(chunk: Chunk, condition: Condition) -> Bool[Tensor, " n"]:
    """Which of the tokens kept a condition names; `RequestError` for a head that has no labels."""
    found = torch.ones_like(chunk.seen, dtype=torch.bool)
    for head, values in condition.items():
        labels = label_of(chunk, head)
        found &= torch.isin(labels, torch.tensor(values, device=labels.device))
    return found


def label_of(chunk: Chunk, head: str) -> Int[Tensor, " n"]:
    """The labels of a head, or the positions, on the tokens kept."""
    if head == POSITION:
        return chunk.seen
    if head not in chunk.labels:
        known = [*chunk.labels, POSITION]
        raise RequestError(
            f"contrasts: there is no head {head!r}{nearest(head, known)}: one of {', '.join(known)}"
        )
    return chunk.labels[head][chunk.kept]


def positions(contrasts: Sequence[LabelContrast], chunks: Iterable[Chunk]) -> Int[Tensor, "contrasts 2"]:
    """How many positions fulfil the positive and the negative condition."""
    counts = torch.zeros(len(contrasts), 2, dtype=torch.long)
    for chunk in chunks:
        each = [[fulfils(chunk, of).sum() for of in (one.positive, one.negative)] for one in contrasts]
        counts += torch.tensor(each)
    return counts


def check_labels(contrasts: Sequence[LabelContrast], chunks: Iterable[Chunk]) -> None:
    """`RequestError` for an unknown head or class, and for a condition with fewer than `LEAST` positions."""
    every = list(chunks)
    for contrast, counts in zip(contrasts, positions(contrasts, every).tolist(), strict=True):
        for key, condition, count in zip(
            ("positive", "negative"), (contrast.positive, contrast.negative), counts, strict=True
        ):
            if count < LEAST:
                there = "; ".join(f"{head} has {_range(every, head)}" for head in condition)
                raise RequestError(
                    f"contrast {contrast.name}: {key}={_told(condition)} holds at {count} positions of the fit "
                    f"split, and needs at least {LEAST}; there {there}"
                )
        target = contrast.target
        if target.head not in (heads := list(every[0].labels)):
            raise RequestError(
                f"contrast {contrast.name}: target: members have no head {target.head!r}{nearest(target.head, heads)}: "
                f"one of {', '.join(heads)}"
            )
        known = set(torch.cat([label_of(chunk, target.head) for chunk in every]).tolist()) - {IGNORED}
        if unknown := [one for one in (*target.positive, *target.negative) if one not in known]:
            raise RequestError(
                f"contrast {contrast.name}: target: {target.head} has no class {unknown[0]} in the fit split; there "
                f"it has {_range(every, target.head)}"
            )


def _told(condition: Condition) -> str:
    parts = (
        f"{head}:{values[0] if len(values) == 1 else list(values)}" for head, values in condition.items()
    )
    return "{" + ", ".join(parts) + "}"


def _range(chunks: Sequence[Chunk], head: str) -> str:
    """The values of a head, in short."""
    values = sorted(set(torch.cat([label_of(chunk, head) for chunk in chunks]).tolist()) - {IGNORED})
    if not values:
        return "no labels"
    consecutive = values == list(range(values[0], values[-1] + 1))
    if consecutive and len(values) > 1:
        return f"{values[0]} to {values[-1]}"
    return (
        ", ".join(map(str, values))
        if len(values) <= 12
        else f"{len(values)} from {values[0]} to {values[-1]}"
    )


def check_prompts(contrast: PromptContrast, task: Task) -> Target:
    """The target of a contrast as tokens of the task; `RequestError` if it reads no prompts or shares all tokens."""
    if not isinstance(task, ReadsPrompts):
        raise RequestError(
            f"contrast {contrast.name}: prompts are read by tasks of text, and this one has none; give conditions "
            "on labels"
        )
    if (target := target_of(contrast, task)) is None:
        raise RequestError(
            f"contrast {contrast.name}: with this tokenizer the words of one side of the target begin with tokens of "
            "the other; give other words"
        )
    return target


def target_of(contrast: PromptContrast, task: ReadsPrompts) -> Target | None:
    """First tokens of the words of one side and not of the other; None where a side has no such token."""
    sides = [set(task.first_tokens(words)) for words in (contrast.positive_words, contrast.negative_words)]
    positive, negative = sides[0] - sides[1], sides[1] - sides[0]
    if not positive or not negative:
        return None
    return Target("tok", tuple(sorted(positive)), tuple(sorted(negative)))


def label_vectors(
    functions: Functions, site: str, contrasts: Sequence[LabelContrast]
) -> Float[Tensor, "contrasts members d"]:
    """`sign` times the mean over the positive positions less that over the negative ones; float64.

    From the fit split alone. `ValueError` where a condition has no position.
    """
    sums: Tensor | None = None
    counts = torch.zeros(len(contrasts), 2, 1, 1, dtype=torch.float64, device=functions.device)
    for chunk in functions.inputs("fit"):
        each = [[fulfils(chunk, of) for of in (one.positive, one.negative)] for one in contrasts]
        where = torch.stack([torch.stack(pair) for pair in each]).double()
        x = torch.stack([functions.read(m, chunk, [site])[site] for m in range(len(functions.models))])
        added = torch.einsum("csn,mnd->csmd", where, x.double())
        sums = added if sums is None else sums + added
        counts += where.sum(-1)[..., None, None]
    if sums is None or not bool((counts > 0).all()):
        raise ValueError("a condition of a contrast holds nowhere in the fit split")
    means = sums / counts
    return _signs(contrasts).to(means)[:, None, None] * (means[:, 0] - means[:, 1])


def prompt_vectors(
    functions: Functions, site: str, contrasts: Sequence[PromptContrast]
) -> Float[Tensor, "contrasts members d"]:
    """The same of the last tokens of prompts."""
    assert isinstance(functions.task, ReadsPrompts)
    found = []
    for contrast in contrasts:
        means = [_mean_at_the_end(functions, site, texts) for texts in (contrast.positive, contrast.negative)]
        found.append(means[0] - means[1])
    return _signs(contrasts).to(found[0])[:, None, None] * torch.stack(found)


def _mean_at_the_end(functions: Functions, site: str, texts: Sequence[str]) -> Float[Tensor, "members d"]:
    assert isinstance(functions.task, ReadsPrompts)
    chunk = functions.task.prompts(texts, functions.device)
    last = torch.nonzero(
        torch.cat([chunk.document[1:] != chunk.document[:-1], chunk.kept.new_ones(1)])
    ).squeeze(1)
    each: list[Mapping[str, Tensor]] = [
        functions.read(m, chunk, [site]) for m in range(len(functions.models))
    ]
    return torch.stack([read[site][last].double().mean(0) for read in each])


def _signs(contrasts: Sequence[LabelContrast] | Sequence[PromptContrast]) -> Tensor:
    return torch.tensor([float(one.sign) for one in contrasts])
