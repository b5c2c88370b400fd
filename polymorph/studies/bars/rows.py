"""Which of the paper's four bars does the cohort pass, and which would a decoy pass too?

A bar is a number with a bound that was set beforehand (`claims` in this folder): *B*, the divergence of a member's
answers from the algorithm's; *P*, the largest mean squared difference of a weight after alignment; *C*, the correlation
of what integrated gradients predict for every component with what its ablation does; *Pr*, the same of components
ablated together, in the order of the prediction. `within` is one member, `across` what one says of another.

A bar that shows something must refuse what it is not meant for. Each is put to decoys of every member in the place of
the other member: `auc` is the chance that it tells a true member from a decoy, ½ if it knows nothing, and below that
it prefers decoys. C within one member can refuse nothing: integrated gradients are complete for any network. P cannot
see what a model computes: a little noise on the weights is nearer to a member than another seed is. P within is of a
copy of the member under a random symmetry, which says that the search works, and nothing of the member.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.alignment.gauge_measures import MAX, paper_mse, products, relative_mse
from polymorph.alignment.jackknife import jackknife_interval
from polymorph.alignment.pairings import chunk_generator
from polymorph.components.ablation import ablations_of
from polymorph.components.agreement import pearson
from polymorph.components.attribution import integrated_roughly
from polymorph.components.cumulative import correlation, ranking, sums
from polymorph.components.decoys import decoys_of
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.function_scores import Answer, TokenMeans, answers, labels_of, parts
from polymorph.evidence.rows import Row
from polymorph.models.architecture import HookedModel
from polymorph.models.functions import Functions
from polymorph.saes.scores import bounded
from polymorph.studies.components.rows import (
    ABLATION,
    INTEGRATED,
    LEAST_DOCUMENTS,
    PAPER,
    PARTS,
    Measured,
    Rankings,
    bounded_correlation,
    measured_members,
)
from polymorph.studies.weights.rows import GAUGE, Models, Search, copy_search
from polymorph.tasks.task import IGNORED, Chunk

STUDY = "bars"
WITHIN, ACROSS = "within", "across"
MEAN = "mean"
"""In the column `head`: the mean over heads, as in the paper."""
MIXTURE = "mixture"
"""In the column `distribution`: all of them together, the first with `FIRST_SHARE` of the samples, as in the paper."""
FIRST_SHARE = 0.6
SAMPLES: Mapping[str, int] = {"cpu": 10**5}
SAMPLES_ELSEWHERE = 10**7
"""Positions at which every head is asked, of every member; of a decoy, and of members of a task without an algorithm,
`SAMPLES_OF_DECOYS`."""
SAMPLES_OF_DECOYS = 10**4
SMOOTHING = 1e-6
"""What the paper takes from the algorithm's label and spreads over the other classes, to have a KL in that form."""
TOKENS_WITHIN = 384
"""On which a member or a decoy is held against its own integrated gradients, at the fewest points for both."""
RESTARTS = 4
"""Random starts of every alignment, those of members and of decoys alike."""
DECOY_DRAWS = 2**28 + 1
ALL = "all"
"""In the column `decoy`: all kinds together."""
SMALL = frozenset({"B", "P"})
"""Bars that are passed below their bound; the others are above it."""


@runtime_checkable
class Algorithmic(Protocol):
    """A task whose labels are a function of the tokens: there is an algorithm that a member can be held against."""

    def label(self, tokens: Int[Tensor, "*batch context"]) -> Any: ...


def applies(evidence: Evidence) -> bool:
    """Only where members are models."""
    return evidence.functions is not None


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """The value of every bar, of members and of decoys, and how well it tells them apart."""
    if evidence.functions is None:
        return
    bars = _Bars(evidence, evidence.functions(evidence.ends))
    rows = [*bars.behavioural(), *bars.parametric(), *bars.causal()]
    yield from rows
    yield from separations(evidence, rows)


@dataclass(frozen=True)
class Decoy:
    """A decoy of the member at a place, among the models that are run."""

    name: str
    member: int
    model: HookedModel


@dataclass(frozen=True)
class _Bars:
    evidence: Evidence
    functions: Functions

    @cached_property
    def decoys(self) -> list[Decoy]:
        head = self.functions.task.headline
        chunk = next(self.functions.inputs("eval"))
        classes = self.functions.hooked_logits(0, chunk, [])[head].shape[-1]
        found = []
        for place, (seed, step) in enumerate(self.evidence.ends):
            keys: dict[str, int] = {}

            def generator(
                name: str, seed: int = seed, step: int = step, keys: dict[str, int] = keys
            ) -> torch.Generator:
                return chunk_generator(DECOY_DRAWS, seed, step, keys.setdefault(name, len(keys)))

            made = decoys_of(self.functions.models[place], head, classes, generator)
            found += [Decoy(name, place, model) for name, model in made]
        return found

    @property
    def directed(self) -> list[tuple[int, int]]:
        return [pair for first, second in self.evidence.index for pair in ((first, second), (second, first))]

    def behavioural(self) -> Iterator[Row]:
        """Bar B: within, from the algorithm's labels; across, from the other's answers."""
        answered = Answered(self.functions, self.directed, self.decoys, self.evidence.blocks)
        for key in answered.keys:
            scores = answered.means.scores(key)
            ((scope, source, target, decoy, convention), distribution), head, metric = key
            own = {"head": head, "distribution": distribution}
            about = self.about("B", scope, source, target, decoy, own)
            value, low, high = bounded(scores)
            counts = {
                "n_tokens": answered.means.tokens(key),
                "n_documents": answered.documents(decoy, distribution),
            }
            bounds = {"low": low, "high": high, "convention": convention}
            yield self.evidence.row(STUDY, None, "eval", metric, value, **about, **bounds, **counts)

    def parametric(self) -> Iterator[Row]:
        """Bar P, after alignment over the full gauge, where the architecture's symmetries are known."""
        symmetries = self.functions.symmetries
        if symmetries is None:
            return
        models = Models(self.evidence)
        for place, end in enumerate(self.evidence.ends):
            about = self.about("P", WITHIN, place, place, None, {})
            yield from self.distances(models, copy_search(models, end), about)
        for first, second in self.evidence.index:
            ends = self.evidence.ends[first], self.evidence.ends[second]
            search = Search(models, ends, {}, RESTARTS)
            yield from self.distances(models, search, self.about("P", ACROSS, first, second, None, {}))
        for decoy in self.decoys:
            one = replace(self.functions, models=[decoy.model])
            raw = {name: own.double().cpu() for name, own in one.weights(0).items()}
            end = self.evidence.ends[decoy.member]
            search = Search(models, (end, end), {}, RESTARTS, symmetries.folded(raw))
            about = self.about("P", ACROSS, decoy.member, decoy.member, decoy.name, {})
            yield from self.distances(models, search, about)

    def distances(self, models: Models, search: Search, about: dict[str, Any]) -> Iterator[Row]:
        """In the paper's formula, and relative to the target's weights in what its gauge leaves alone."""
        moved, target = search.moved[GAUGE], search.weights[1]
        symmetries, used = models.symmetries, models.used
        paper = paper_mse(moved, target, symmetries, used)[MAX]
        relative = relative_mse(*(products(own, symmetries, used) for own in (moved, target)))[MAX]
        own = {"map": GAUGE, "n_documents": None, **about}
        yield self.evidence.row(STUDY, None, "eval", "mse", paper, convention=PAPER, **own)
        yield self.evidence.row(STUDY, None, "eval", "relative_mse", relative, **own)

    def causal(self) -> Iterator[Row]:
        """Bars C and Pr; a decoy is the target of its own member's predictions, and of its own."""
        members = measured_members(self.evidence)
        if any(not member.predicts(PARTS) for member in members):
            return
        for place, member in enumerate(members):
            paper = Prediction(member, member, paper=True)
            yield from self.predicted(paper, self.about("C", WITHIN, place, place, None, {}), PAPER)
            yield from self.alone(member, place, None)
        for first, second in self.directed:
            across = Prediction(members[first], members[second])
            yield from self.predicted(across, self.about("C", ACROSS, first, second, None, {}))
        for decoy in self.decoys:
            source = members[decoy.member]
            functions = replace(self.functions, models=[decoy.model])
            measured = Measured(source.end, ablations_of(functions, 0, source.documents), source.blocks)
            about = self.about("C", ACROSS, decoy.member, decoy.member, decoy.name, {})
            yield from self.predicted(Prediction(source, measured), about)
            yield from self.alone(measured, decoy.member, decoy.name)

    def alone(self, model: Measured, place: int, decoy: str | None) -> Iterator[Row]:
        """What a member or a decoy says of itself, with the same few points and tokens for both."""
        fewer = model.ablations.on_fewer(TOKENS_WITHIN, LEAST_DOCUMENTS)
        own = Measured(model.end, fewer, model.blocks)
        about = self.about("C", WITHIN, place, place, decoy, {})
        yield from self.predicted(Prediction(own, own, rough=True), about)

    def predicted(
        self, prediction: "Prediction", about: dict[str, Any], convention: str | None = None
    ) -> Iterator[Row]:
        """Both bars; the paper has no other Pr than its C."""
        documents = prediction.target.documents
        counts = {
            "n_documents": len(documents.tokens),
            "n_tokens": documents.n_tokens,
            "convention": convention,
        }
        bars = {"C": ("effect_correlation", prediction.single)}
        if convention is None:
            bars["Pr"] = ("cumulative_correlation", prediction.cumulative)
        for bar, (metric, scores) in bars.items():
            if bool(scores.isfinite().all()):
                value, low, high = bounded_correlation(scores)
                own = {**about, "extra": {**about["extra"], "bar": bar}, "low": low, "high": high, **counts}
                yield self.evidence.row(STUDY, None, "eval", metric, value, **own)

    def about(
        self, bar: str, scope: str, source: int, target: int, decoy: str | None, extra: dict[str, Any]
    ) -> dict[str, Any]:
        """Who is held against whom. A decoy stands in the place of another member: it is a control of `across`."""
        (seed, step), (other, its) = self.evidence.ends[source], self.evidence.ends[target]
        role = "control" if decoy else "ceiling" if scope == WITHIN and bar != "B" else "estimate"
        alone = bar == "B" and scope == WITHIN
        named = {"decoy": decoy} if decoy else {}
        return {
            "source": None if alone else seed,
            "source_step": None if alone else step,
            "target": other,
            "target_step": its,
            "role": role,
            "n_seeds": len({seed, other}),
            "extra": {"bar": bar, "scope": scope, **named, **extra},
        }


@dataclass(frozen=True)
class Prediction:
    """What a source's integrated gradients say of a target, component by component under their names."""

    source: Measured
    target: Measured
    paper: bool = False
    rough: bool = False
    """Whether integrated gradients are taken at the fewest points, whatever their error."""

    @cached_property
    def said(self) -> Float[Tensor, "n scores"]:
        if self.rough:
            some = self.source.families[PARTS]
            return self.source.per_token(integrated_roughly(self.source.ablations, some))
        found = self.source.effects(PARTS, INTEGRATED, self.paper)
        assert found is not None
        return found

    @property
    def single(self) -> Float[Tensor, "scores"]:
        """Pearson's r with the effects of single components."""
        measured = self.target.effects(PARTS, ABLATION)
        assert measured is not None
        return pearson(self.said.mT, measured.mT)

    @property
    def cumulative(self) -> Float[Tensor, "scores"]:
        """Pearson's r of both curves, by the source's ranking."""
        rankings, order = Rankings(self.target), ranking(self.said[:, 0])
        return correlation(sums(self.said, order, rankings.sizes), rankings.curve(order))


Compared = tuple[str, int, int, str | None, str | None]
"""Scope, source, target, decoy, convention."""
Key = tuple[tuple[Compared, str], str, str]
"""The same and the distribution; head; metric."""


@dataclass
class Answered:
    """Divergences of the answers of members and decoys, from labels and from one another, over the same tokens."""

    functions: Functions
    directed: Sequence[tuple[int, int]]
    decoys: Sequence[Decoy]
    blocks: int
    read: dict[tuple[bool, str], int] = field(default_factory=dict)
    _keys: dict[Key, None] = field(default_factory=dict)

    @property
    def keys(self) -> list[Key]:
        """Of `means`, in the order in which they were met."""
        return [] if self.means is None else list(self._keys)

    @property
    def algorithmic(self) -> bool:
        return isinstance(self.functions.task, Algorithmic)

    @property
    def samples(self) -> int:
        if not self.algorithmic:
            return SAMPLES_OF_DECOYS
        return SAMPLES.get(self.functions.device.type, SAMPLES_ELSEWHERE)

    def documents(self, decoy: str | None, distribution: str) -> int:
        """How many of a distribution were read by members, or by decoys."""
        names = self.functions.distributions if distribution == MIXTURE else [distribution]
        return sum(self.read.get((decoy is not None, name), 0) for name in names)

    @cached_property
    def means(self) -> TokenMeans:
        """Of all that is compared, from one pass over the inputs."""
        means, names = TokenMeans(self.blocks), self.functions.distributions
        for place, distribution in enumerate(names):
            rest = (1 - FIRST_SHARE) / max(1, len(names) - 1)
            share = 1.0 if len(names) == 1 else FIRST_SHARE if place == 0 else rest
            tokens = 0
            for chunk in self.functions.inputs(distribution, self.samples):
                with_decoys = tokens < share * SAMPLES_OF_DECOYS
                self.update(means, chunk, distribution, with_decoys)
                for which in (False, True)[: 1 + with_decoys]:
                    seen = int(chunk.document.max()) + 1
                    self.read[which, distribution] = max(seen, self.read.get((which, distribution), 0))
                tokens += int(chunk.kept.sum())
                if tokens >= share * self.samples:
                    break
        return means

    def update(self, means: TokenMeans, chunk: Chunk, distribution: str, with_decoys: bool) -> None:
        """Add a chunk; the answers of all members are there together, those of one decoy at a time."""
        logits = [self.functions.logits(member, chunk) for member in range(len(self.functions.models))]
        labels = labels_of(chunk)
        distributions = [MIXTURE] if len(self.functions.distributions) == 1 else [distribution, MIXTURE]
        for some in parts(logits[0]):
            each = [answers(own, some) for own in logits]
            there = {head: label[some] for head, label in labels.items()}
            document = chunk.document[some]

            def add(
                key: Compared,
                by_head: dict[str, Tensor],
                there: Mapping[str, Tensor] = there,
                document: Tensor = document,
            ) -> None:
                together = torch.stack([*by_head.values()]).mean(0)
                for head, values in {**by_head, MEAN: together}.items():
                    given = there.get(head, next(iter(there.values()))) != IGNORED
                    for name in distributions:
                        whole: Key = ((key, name), head, "label_kl" if key[0] == WITHIN else "kl")
                        self._keys[whole] = None
                        means.add(whole, values, document, given)

            for member, own in enumerate(each):
                self.label_divergence(add, (WITHIN, member, member, None), own, there)
            for source, target in self.directed:
                add((ACROSS, source, target, None, None), _kl(each[source], each[target]))
            for decoy in self.decoys if with_decoys else ():
                own = self.of_decoy(decoy, chunk, some)
                self.label_divergence(add, (WITHIN, decoy.member, decoy.member, decoy.name), own, there)
                add((ACROSS, decoy.member, decoy.member, decoy.name, None), _kl(each[decoy.member], own))

    def of_decoy(self, decoy: Decoy, chunk: Chunk, some: slice) -> dict[str, Answer]:
        return answers(replace(self.functions, models=[decoy.model]).logits(0, chunk), some)

    def label_divergence(
        self, add: Any, key: tuple[Any, ...], own: Mapping[str, Answer], there: Mapping[str, Tensor]
    ) -> None:
        """As it is, −log p of the label, and in the paper's form; only where the labels are an algorithm's."""
        if self.algorithmic:
            add((*key, None), {head: one.fit(there[head])["loss"] for head, one in own.items()})
            add((*key, PAPER), {head: smoothed_kl(one.log_p, there[head]) for head, one in own.items()})


def _kl(source: Mapping[str, Answer], target: Mapping[str, Answer]) -> dict[str, Tensor]:
    return {head: own.kl(target[head]) for head, own in source.items()}


def smoothed_kl(
    log_p: Float[Tensor, "n classes"], labels: Int[Tensor, "n"], smoothing: float = SMOOTHING
) -> Float[Tensor, "n"]:
    """KL(q ‖ p) with q = 1 − ε on the label and ε/(K − 1) on each of the other classes; ε = 1e-6 in the paper.

    For an answer that is right and sure it is above 0 and grows with how sure it is: of a class that is given e⁻ˣ
    it adds ε/(K − 1)·(x − log((K − 1)/ε)).
    """
    others = log_p.shape[-1] - 1
    each = smoothing / others
    own = log_p.gather(-1, labels.clamp(min=0)[:, None]).squeeze(-1)
    rest = log_p.sum(-1) - own
    entropy = (1 - smoothing) * torch.log1p(torch.tensor(-smoothing, dtype=log_p.dtype))
    entropy = entropy + smoothing * torch.log(torch.tensor(each, dtype=log_p.dtype))
    return entropy.to(log_p) - (1 - smoothing) * own - each * rest


def auc(members: Sequence[float], decoys: Sequence[float], small: bool) -> float:
    """The chance that a member drawn at random is on the better side of a decoy, a tie counting half."""
    better = [((d > m) if small else (m > d)) + 0.5 * (m == d) for m in members for d in decoys]
    return sum(better) / len(better)


def separations(evidence: Evidence, rows: Sequence[Row]) -> Iterator[Row]:
    """`auc` of every bar and scope, against all decoys and each kind; the interval leaves out one seed at a time."""
    told = [row for row in rows if _is_bar(row)]
    for bar, scope in dict.fromkeys((row.extra["bar"], row.extra["scope"]) for row in told):
        own = [row for row in told if (row.extra["bar"], row.extra["scope"]) == (bar, scope)]
        members = [row for row in own if "decoy" not in row.extra]
        decoys = [row for row in own if "decoy" in row.extra]
        for name in (ALL, *dict.fromkeys(row.extra["decoy"] for row in decoys)):
            some = [row for row in decoys if name in (ALL, row.extra["decoy"])]
            if not members or not some:
                continue
            value, low, high = _auc(members, some, bar in SMALL)
            about = {"extra": {"bar": bar, "scope": scope, "decoy": name}, "low": low, "high": high}
            counts = {"n_documents": own[0].n_documents, "n_tokens": own[0].n_tokens}
            yield evidence.row(STUDY, None, "eval", "auc", value, **about, **counts)


def _is_bar(row: Row) -> bool:
    """The one number of a bar: of all heads and distributions, in the convention that has the bound."""
    if row.extra["bar"] == "B":
        return row.convention is None and (row.extra["head"], row.extra["distribution"]) == (MEAN, MIXTURE)
    return (row.convention == PAPER) == (row.extra["bar"] == "P")


def _auc(
    members: Sequence[Row], decoys: Sequence[Row], small: bool
) -> tuple[float, float | None, float | None]:
    def of(left_out: int) -> float | None:
        both = [
            [row.value for row in rows if left_out not in (row.source, row.target)]
            for rows in (members, decoys)
        ]
        return auc(both[0], both[1], small) if all(both) else None

    value = of(-1)
    assert value is not None
    seeds = sorted({seed for row in members for seed in (row.source, row.target) if seed is not None})
    rest = [found for seed in seeds if (found := of(seed)) is not None]
    if len(seeds) < 3 or len(rest) < len(seeds):
        return value, None, None
    low, high = jackknife_interval(torch.tensor(value), torch.tensor(rest))
    return value, max(0.0, float(low)), min(1.0, float(high))
