"""How well does each member say its labels, by how much of the document it has read?

Whatever is shared between members is read from what they compute; here is how good that is, without any site. The
loss of a token is a cross-entropy in nats. What a member gains by reading on is the fall of its loss with the number
of tokens it has read; the control is the entropy of the labels, the loss of the best answer that is always the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.evidence.evidence import Evidence
from polymorph.evidence.function_scores import SUM
from polymorph.evidence.rows import Row
from polymorph.models.activations import Predicting, Predictions
from polymorph.saes.scores import bounded, with_and_without

STUDY = "loss_by_position"
EDGES = (0, 1, 2, 3, *(start * 2**power for power in range(1, 30) for start in (2, 3)))
"""Where bins of tokens read begin, and the one before ends: one number each up to 3, then two bins a doubling: 22 of
them in a context of 2,048."""
BINS = len(EDGES) - 1


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """`loss` of every member and head: over all tokens of the eval split, and in every bin that holds tokens.

    `from_position` is the least number of tokens read before in a bin, `to_position` the first beyond it. The
    control `label_entropy` is that of the labels on these very tokens, which are the same for every member.
    """
    if not isinstance(evidence.source, Predicting):
        return
    for member, (seed, step) in enumerate(evidence.ends):
        read = _Read(evidence.blocks)
        labels = _Labels(evidence.blocks) if member == 0 else None
        for some in evidence.source.predictions(member, "eval"):
            read.update(some)
            if labels is not None:
                labels.update(some)
        yield from _rows(evidence, "loss", read.losses(), target=seed, target_step=step, n_seeds=1)
        if labels is not None:
            yield from _rows(evidence, "label_entropy", labels.entropies(), role="control")


@dataclass(frozen=True)
class _Scored:
    """Of one head on some tokens, all of them where `place` is None."""

    head: str
    place: int | None
    scores: Float[Tensor, "scores"]
    n_tokens: int
    n_documents: int | None = None


def _rows(evidence: Evidence, metric: str, found: Iterator[_Scored], **about: Any) -> Iterator[Row]:
    for one in found:
        value, low, high = bounded(one.scores)
        extra: dict[str, str | int] = {"head": one.head}
        if one.place is not None:
            extra |= {"from_position": EDGES[one.place], "to_position": EDGES[one.place + 1]}
        own = {**about, "low": low, "high": high, "n_tokens": one.n_tokens, "extra": extra}
        own |= {} if one.n_documents is None else {"n_documents": one.n_documents}
        yield evidence.row(STUDY, None, "eval", metric, value, **own)


@dataclass
class _Read:
    """Of one member, by block of documents and bin: tokens, and their losses by head; float64, on the CPU."""

    blocks: int
    sums: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens = torch.zeros(self.blocks, BINS, dtype=torch.float64)
        self.documents = torch.zeros(BINS, dtype=torch.long)

    def update(self, some: Predictions) -> None:
        """Add tokens; a document is whole in one chunk, so no later one counts it again."""
        place = bins_of(some.seen.cpu())
        document = some.document.cpu()
        self.tokens += self._by_block(torch.ones(len(place)), document, place)
        for head, losses in some.losses.items():
            added = self._by_block(losses.cpu(), document, place)
            self.sums[head] = self.sums[head] + added if head in self.sums else added
        self.documents += torch.bincount((document * BINS + place).unique() % BINS, minlength=BINS)

    def _by_block(self, values: Tensor, document: Tensor, place: Tensor) -> Float[Tensor, "blocks bins"]:
        sums = torch.zeros(self.blocks * BINS, dtype=torch.float64)
        sums.index_add_(0, document % self.blocks * BINS + place, values.double())
        return sums.view(self.blocks, BINS)

    def losses(self) -> Iterator[_Scored]:
        """Every head and their sum; over all tokens, then bin by bin."""
        heads = (
            self.sums
            if len(self.sums) == 1
            else {**self.sums, SUM: torch.stack([*self.sums.values()]).sum(0)}
        )
        for head, sums in heads.items():
            count = int(self.tokens.sum())
            yield _Scored(head, None, _mean(sums.sum(1), self.tokens.sum(1)), count)
            for place in self.documents.nonzero().flatten().tolist():
                count, scores = int(self.tokens[:, place].sum()), _mean(sums[:, place], self.tokens[:, place])
                yield _Scored(head, place, scores, count, int(self.documents[place]))


@dataclass
class _Labels:
    """How often every class is the label, by head and block of documents."""

    blocks: int
    counts: dict[str, Tensor] = field(default_factory=dict)

    def update(self, some: Predictions) -> None:
        """Add tokens; classes that were not met before are new columns."""
        block = some.document.cpu() % self.blocks
        for head, each in some.labels.items():
            label = each.cpu()
            classes = max(int(label.max()) + 1, self.counts[head].shape[1] if head in self.counts else 1)
            added = torch.bincount(block * classes + label, minlength=self.blocks * classes)
            added = added.view(self.blocks, classes).double()
            if head in self.counts:
                added += F.pad(self.counts[head], (0, classes - self.counts[head].shape[1]))
            self.counts[head] = added

    def entropies(self) -> Iterator[_Scored]:
        """Every head and their sum: log n − Σ c log c / n of the classes' counts c."""
        found = {head: _entropy(with_and_without(_held(counts))) for head, counts in self.counts.items()}
        if len(found) > 1:
            found[SUM] = torch.stack([*found.values()]).sum(0)
        tokens = int(next(iter(self.counts.values())).sum())
        yield from (_Scored(head, None, scores, tokens) for head, scores in found.items())


def bins_of(seen: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """The bin of each number of tokens read."""
    return torch.bucketize(seen, torch.tensor(EDGES[1:]), right=True)


def _entropy(counts: Float[Tensor, "scores classes"]) -> Float[Tensor, "scores"]:
    n = counts.sum(-1)
    return n.log() - torch.xlogy(counts, counts).sum(-1) / n


def _held(counts: Float[Tensor, "blocks classes"]) -> Float[Tensor, "held classes"]:
    return counts[counts.sum(-1) > 0]


def _mean(sums: Float[Tensor, "blocks"], tokens: Float[Tensor, "blocks"]) -> Float[Tensor, "scores"]:
    held = tokens > 0
    return with_and_without(sums[held]) / with_and_without(tokens[held])
