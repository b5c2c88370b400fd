"""Stitched models run over the eval split, and what their answers score."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from jaxtyping import Float
from torch import Tensor

from polymorph.evidence.evidence import Evidence
from polymorph.evidence.function_scores import (
    Answer,
    ClassMeans,
    TokenMeans,
    answers,
    bounded_each,
    counted,
    entropy,
    labels_of,
    parts,
    summed,
    with_sum,
)
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Role, Row
from polymorph.models.activations import Edit
from polymorph.models.functions import Functions
from polymorph.saes.scores import LEAST_LOSS, clear_ratio
from polymorph.tasks.task import Chunk

STUDY = "stitching"


PERMUTED, COVARIANCE, MEAN = "documents_permuted", "covariance_only", "predict_mean"


CONSTANT = "constant_answer"
"""Of `loss_recovered`, the convention whose 0 is the entropy of the labels."""


PARTS_HELD = 16
"""Parts of members' answers in memory, a gigabyte: more than both parents have, but where the vocabulary is large."""


Scores = Float[Tensor, "scores"]


Ablated = dict[tuple[End, str, str], Scores]
"""The loss of members with the mean in place of a site, by member, site and head."""


def unchanged(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Opened:
    """Members at checkpoints, on the eval documents that are run."""

    ends: Sequence[End]
    functions: Functions


@dataclass(frozen=True)
class Use:
    """One stitched model: two places in `ends`, a site, and what is done between them."""

    lower: int
    upper: int
    site: str
    edit: Edit = unchanged
    map: str | None = None
    role: Role = "estimate"
    control: str | None = None


@dataclass(frozen=True)
class Stitched:
    """Stitched models, all run in one pass over the documents; but for the maps, in memory that does not depend on
    how many they are."""

    evidence: Evidence
    members: Opened
    uses: Sequence[Use]

    @property
    def means(self) -> TokenMeans:
        """Of members by (place, head, metric), and of stitched models by (their number as text, head, metric)."""
        return self._run[0]

    @cached_property
    def _run(self) -> tuple[TokenMeans, ClassMeans]:
        """The means, and the labels."""
        means, labels = TokenMeans(self.evidence.blocks), ClassMeans(self.evidence.blocks)
        functions, sites = self.members.functions, sorted({use.site for use in self.uses})
        order = sorted(range(len(self.uses)), key=lambda i: (self.uses[i].lower, self.uses[i].upper))
        for chunk in functions.inputs("eval"):
            at = _At(functions, chunk, sites, means)
            at.labels(labels)
            for place in range(len(self.members.ends)):
                at.member(place)
            for i in order:
                at.stitched(f"{i}", self.uses[i])
        return means, labels

    @cached_property
    def ablated(self) -> Ablated:
        """Of the members whose mean is among the uses."""
        return {
            (self.members.ends[use.upper], use.site, head): self.means.scores((f"{i}", head, "loss"))
            for i, use in enumerate(self.uses)
            if use.control == MEAN
            for head in self.means.heads
        }

    @cached_property
    def constant(self) -> dict[str, Scores]:
        """The loss of the best constant answer, by head: the entropy of the labels."""
        each = {head: entropy(self._run[1].scores(((), head, "label"))) for head in self._run[1].heads}
        return summed(each)

    def rows(self, ablated: Ablated) -> Iterator[Row]:
        """Of every stitched model; a member by itself only where it is new."""
        new = [self.evidence.ends[place] for place in self.evidence.new_members()]
        for i, use in enumerate(self.uses):
            alone = use.lower == use.upper
            if not alone or self.members.ends[use.upper] in new:
                for head in self.means.heads:
                    yield from self._rows(f"{i}", use, head, ablated)

    def _rows(self, number: str, use: Use, head: str, ablated: Ablated) -> Iterator[Row]:
        found = self._scores(number, use, head, ablated)
        (source, source_step), (upper, target_step) = (self.members.ends[p] for p in (use.lower, use.upper))
        about: dict[str, Any] = {"target": upper, "target_step": target_step, "n_seeds": len({source, upper})}
        if use.control != MEAN:
            about |= {"source": source, "source_step": source_step}
        extra = {"head": head} | ({} if use.control is None else {"control": use.control})
        about |= {"role": use.role, "map": use.map, "extra": extra}
        about |= {"n_tokens": self.means.tokens((number, head, "loss"))}
        about |= {"n_documents": self.members.functions.probe.eval}
        for (metric, convention), bounds in zip(found, bounded_each([*found.values()]), strict=True):
            value, low, high = bounds
            own = {"low": low, "high": high, "convention": convention, **about}
            yield self.evidence.row(STUDY, use.site, "eval", metric, value, **own)

    def _scores(
        self, number: str, use: Use, head: str, ablated: Ablated
    ) -> dict[tuple[str, str | None], Scores]:
        """By metric and convention; of the target without anything of a source, nothing is said of one."""
        of = self.means.scores
        loss, target = of((number, head, "loss")), of((use.upper, head, "loss"))
        found: dict[tuple[str, str | None], Scores] = {("loss", None): loss}
        found |= {(metric, None): of((number, head, metric)) for metric in ("accuracy", "kl_target")}
        found["delta_loss_target", None] = loss - target
        constants = {CONSTANT: self.constant[head]}
        if use.control != MEAN:
            found["delta_loss_source", None] = loss - of((use.lower, head, "loss"))
            found["kl_source", None] = of((number, head, "kl_source"))
            constants[MEAN] = ablated[self.members.ends[use.upper], use.site, head]
        for convention, most in constants.items():
            recovered = clear_ratio(most - loss, most - target, LEAST_LOSS)
            if recovered is not None:
                found["loss_recovered", convention] = recovered
        return found


class _At:
    """One chunk: the answers of members there, and of whatever is stitched from them."""

    def __init__(self, functions: Functions, chunk: Chunk, sites: Sequence[str], means: TokenMeans) -> None:
        self._functions, self._chunk, self._means = functions, chunk, means
        self._labels = labels_of(chunk)
        self._counted = counted(self._labels)
        # stitched models come in the order of their parents: two at a time are enough
        self._read = lru_cache(1)(lambda place: functions.read(place, chunk, sites))
        self._logits = lru_cache(2)(lambda place: functions.logits(place, chunk))
        self._start = lru_cache(len(sites))(lambda place, site: functions.stream(place, chunk, site))
        self._answers = lru_cache(PARTS_HELD)(self._answered)

    def labels(self, found: ClassMeans) -> None:
        """Count the labels."""
        for head, own in self._labels.items():
            kept, classes = self._counted[head], self._logits(0)[head].shape[-1]
            found.count(((), head, "label"), own[kept], classes, self._chunk.document[kept])

    def member(self, place: int) -> None:
        """Add a member as it is."""
        for part in parts(self._logits(place)):
            said = self._answers(place, part.start, part.stop)
            labels = {head: own[part] for head, own in self._labels.items()}
            self._add(place, part, {head: answer.fit(labels[head]) for head, answer in said.items()})

    def stitched(self, number: str, use: Use) -> None:
        """Add a stitched model."""
        carried = use.edit(self._read(use.lower)[use.site])
        start = self._start(use.upper, use.site)
        logits = self._functions.logits(use.upper, self._chunk, use.site, lambda _: carried, start)
        for part in parts(logits):
            lower, upper = (self._answers(p, part.start, part.stop) for p in (use.lower, use.upper))
            values = {
                head: {
                    **answer.fit(self._labels[head][part]),
                    "kl_source": lower[head].kl(answer),
                    "kl_target": upper[head].kl(answer),
                }
                for head, answer in answers(logits, part).items()
            }
            self._add(number, part, values)

    def _answered(self, place: int, start: int, stop: int) -> Mapping[str, Answer]:
        return answers(self._logits(place), slice(start, stop))

    def _add(self, of: int | str, part: slice, by_head: Mapping[str, Mapping[str, Tensor]]) -> None:
        document = self._chunk.document[part]
        for head, values in with_sum(by_head).items():
            for metric, each in values.items():
                self._means.add((of, head, metric), each, document, self._counted[head][part])
