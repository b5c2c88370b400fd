"""The answers of members on one distribution, and what they score by themselves and against one another."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from polymorph.evidence.evidence import Evidence
from polymorph.evidence.function_scores import (
    HELD,
    Answer,
    ClassMeans,
    TokenMeans,
    answers,
    counted,
    entropy,
    labels_of,
    parts,
    summed,
    with_sum,
)
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Role, Row
from polymorph.models.functions import Functions
from polymorph.saes.scores import LEAST_LOSS, bounded, clear_ratio
from polymorph.tasks.task import Chunk

STUDY = "equivalence"


CONSTANT, CHANCE, EARLY, UNTRAINED = "constant", "chance", "early_step", "untrained"


Pair = tuple[int, int]


@dataclass(frozen=True)
class Group:
    """Members at checkpoints that are read together, and the pairs among them, as places, that are compared."""

    ends: Sequence[End]
    pairs: Sequence[Pair]
    role: Role
    control: str | None = None

    @property
    def directed(self) -> list[Pair]:
        """Both ways; a ceiling from the earlier checkpoint to the later one alone."""
        return [way for pair in self.pairs for way in self.ways(pair)]

    def ways(self, pair: Pair) -> list[Pair]:
        """Those of one pair."""
        return [pair] if self.role == "ceiling" else [pair, pair[::-1]]

    def tiles(self, at_once: int) -> list[list[Pair]]:
        """The pairs in lots that need at most twice so many members each."""
        found: dict[Pair, list[Pair]] = defaultdict(list)
        for first, second in self.pairs:
            found[first // at_once, second // at_once].append((first, second))
        return list(found.values())


@dataclass
class Read:
    """The answers of a group on one distribution; keys are (places, head, metric)."""

    evidence: Evidence
    group: Group
    distribution: str
    sequences: int

    def __post_init__(self) -> None:
        self.means = TokenMeans(self.evidence.blocks)
        self.classes = ClassMeans(self.evidence.blocks)

    def update(self, functions: Functions, chunk: Chunk) -> None:
        """Add the sequences of a chunk."""
        logits = {0: functions.logits(0, chunk)}
        at_once = max(1, HELD // (2 * sum(own.numel() for own in logits[0].values())))
        seen: set[int] = set()
        for pairs in self.group.tiles(at_once):
            places = sorted({place for pair in pairs for place in pair})
            logits = {p: logits[p] if p in logits else functions.logits(p, chunk) for p in places}
            for part in parts(logits[places[0]]):
                some = _Part(chunk, part, {place: answers(own, part) for place, own in logits.items()})
                for place in places:
                    if place not in seen:
                        self._add_member(some, place)
                for pair in pairs:
                    for way in self.group.ways(pair):
                        self._add_pair(some, way)
            seen |= set(places)

    def _add_member(self, some: "_Part", place: int) -> None:
        for head, values in some.fits[place].items():
            for metric, each in values.items():
                self.means.add(((place,), head, metric), each, some.document, some.counted[head])
        for head, answer in some.said[place].items():
            kept = some.counted[head]
            document, of = some.document[kept], answer.log_p.shape[-1]
            self.means.add(((place,), head, "entropy"), answer.entropy, some.document, kept)
            self.classes.add(((place,), head, "p"), answer.p[kept], document)
            self.classes.count(((place,), head, "top"), answer.top[kept], of, document)
            if place == 0:
                self.classes.count(((), head, "label"), some.labels[head][kept], of, document)

    def _add_pair(self, some: "_Part", way: Pair) -> None:
        first, second = (some.said[place] for place in way)
        apart = {
            head: {"kl": own.kl(second[head]), "agreement": (own.top == second[head].top).double()}
            for head, own in first.items()
        }
        for head, values in with_sum(apart).items():
            kept = some.counted[head]
            for metric, each in values.items():
                self.means.add((way, head, metric), each, some.document, kept)
            wrong = kept & (some.fits[way[0]][head]["accuracy"] == 0)
            key = (way, head, "agreement_where_wrong")
            self.means.add(key, values["agreement"], some.document, wrong)

    @property
    def heads(self) -> list[str]:
        """Without their sum."""
        return self.classes.heads

    def member_rows(self, places: Sequence[int]) -> Iterator[Row]:
        """Loss and accuracy of members."""
        for place in places:
            (seed, step), own = self.group.ends[place], (place,)
            about: dict[str, Any] = {"target": seed, "target_step": step, "n_seeds": 1}
            for head in self.means.heads:
                for metric in ("loss", "accuracy"):
                    yield from self._mean_rows((own, head, metric), **about)

    def pair_rows(self) -> Iterator[Row]:
        """How far the answers of every ordered pair are apart."""
        for way in self.group.directed:
            for head in self.means.heads:
                for metric in ("kl", "agreement", "agreement_where_wrong"):
                    yield from self._mean_rows((way, head, metric), **self._ends(way))
                relative = clear_ratio(
                    self.means.scores((way, head, "kl")), self.from_constant(way[0])[head], LEAST_LOSS
                )
                if relative is not None:
                    about = {**self._ends(way), "n_tokens": self._tokens(head)}
                    yield self._row("relative_kl", head, relative, **about)

    def constant_rows(self) -> Iterator[Row]:
        """The constant answer that is best, and those that are nearest to each member; agreement by chance."""
        about: dict[str, Any] = {"role": "control", "control": CONSTANT}
        labels = {head: self.classes.scores(((), head, "label")) for head in self.heads}
        for head, scores in summed({head: entropy(own) for head, own in labels.items()}).items():
            yield self._row("loss", head, scores, n_tokens=self._tokens(head), **about)
        for head, own in labels.items():
            yield self._row("accuracy", head, own.amax(-1), n_tokens=self._tokens(head), **about)
        for place, (seed, step) in enumerate(self.group.ends):
            of: dict[str, Any] = {"source": seed, "source_step": step, "n_seeds": 1}
            for head, scores in self.from_constant(place).items():
                yield self._row("kl", head, scores, n_tokens=self._tokens(head), **about, **of)
        yield from self._chance_rows()

    def from_constant(self, place: int) -> dict[str, Float[Tensor, "scores"]]:
        """KL(p ‖ q) of a member's answers p from the constant q that is nearest to them, by head.

        In the mean over tokens it is least for q the mean of p, and is then H(q) − mean H(p). The labels' own
        distribution would give infinity wherever a class is not among them.
        """
        nearest = {head: entropy(self.classes.scores(((place,), head, "p"))) for head in self.heads}
        own = {head: self.means.scores(((place,), head, "entropy")) for head in self.heads}
        return summed({head: nearest[head] - own[head] for head in self.heads})

    def _chance_rows(self) -> Iterator[Row]:
        """How often two members would agree if their answers had nothing to do with one another: Σ_c f_c g_c."""
        for way in self.group.directed:
            for head in self.heads:
                f, g = (self.classes.scores(((place,), head, "top")) for place in way)
                about = {**self._ends(way), "n_tokens": self._tokens(head)}
                yield self._row("agreement", head, (f * g).sum(-1), role="control", control=CHANCE, **about)

    def excess_rows(self, ceilings: Mapping[int, "Read"]) -> Iterator[Row]:
        """KL of a pair less the mean of its members' own, on the same documents."""
        for way in self.group.directed:
            seeds = [self.group.ends[place][0] for place in way]
            if not set(seeds) <= ceilings.keys():
                continue
            for head in self.means.heads:
                within = [ceilings[seed].means.scores(((0, 1), head, "kl")) for seed in seeds]
                excess = self.means.scores((way, head, "kl")) - torch.stack(within).mean(0)
                about = {**self._ends(way), "n_tokens": self._tokens(head)}
                yield self._row("kl_excess", head, excess, **about)

    def _ends(self, way: Pair) -> dict[str, Any]:
        (source, source_step), (target, target_step) = (self.group.ends[place] for place in way)
        steps = {"source_step": source_step, "target_step": target_step}
        return {"source": source, "target": target, **steps, "n_seeds": len({source, target})}

    def _tokens(self, head: str) -> int:
        return self.means.tokens(((0,), head, "loss"))

    def _mean_rows(self, key: tuple[tuple[int, ...], str, str], **about: Any) -> Iterator[Row]:
        if tokens := self.means.tokens(key):  # nobody is wrong, perhaps
            yield self._row(key[2], key[1], self.means.scores(key), n_tokens=tokens, **about)

    def _row(
        self,
        metric: str,
        head: str,
        scores: Float[Tensor, "scores"],
        role: Role | None = None,
        control: str | None = None,
        **about: Any,
    ) -> Row:
        value, low, high = bounded(scores)
        control = self.group.control if control is None else control
        extra = {"distribution": self.distribution, "head": head}
        return Row(
            cohort=self.evidence.cohort,
            study=STUDY,
            role=self.group.role if role is None else role,
            metric=metric,
            value=value,
            low=low,
            high=high,
            n_documents=self.sequences,
            extra=extra | ({} if control is None else {"control": control}),
            **{"n_seeds": len(self.group.ends), **about},
        )


@dataclass(frozen=True)
class _Part:
    """Some tokens of a chunk, and what members say there."""

    chunk: Chunk
    part: slice
    said: Mapping[int, Mapping[str, Answer]]

    @cached_property
    def document(self) -> Tensor:
        return self.chunk.document[self.part]

    @cached_property
    def labels(self) -> dict[str, Tensor]:
        return {head: own[self.part] for head, own in labels_of(self.chunk).items()}

    @cached_property
    def counted(self) -> dict[str, Bool[Tensor, "n"]]:
        return counted(self.labels)

    @cached_property
    def fits(self) -> dict[int, Mapping[str, Mapping[str, Tensor]]]:
        """Loss and accuracy by place and head."""
        return {
            place: with_sum({head: own.fit(self.labels[head]) for head, own in said.items()})
            for place, said in self.said.items()
        }
