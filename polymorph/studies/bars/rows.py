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

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.gauge_measures import MAX, paper_mse, products, relative_mse
from polymorph.alignment.pairings import chunk_generator
from polymorph.components.ablation import ablations_of
from polymorph.components.agreement import pearson
from polymorph.components.attribution import integrated_roughly
from polymorph.components.cumulative import correlation, ranking, sums
from polymorph.components.decoys import decoys_of
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row
from polymorph.models.functions import Functions
from polymorph.saes.scores import bounded
from polymorph.studies.bars.divergence import ACROSS, WITHIN, Answered, Decoy
from polymorph.studies.bars.separation import STUDY, separations
from polymorph.studies.components.members import (
    ABLATION,
    INTEGRATED,
    LEAST_DOCUMENTS,
    Measured,
    bounded_correlation,
    measured_members,
)
from polymorph.studies.components.rankings import PARTS, Rankings
from polymorph.studies.components.rows import PAPER
from polymorph.studies.weights.search import GAUGE, Models, Search, copy_search

TOKENS_WITHIN = 384
"""On which a member or a decoy is held against its own integrated gradients, at the fewest points for both."""
RESTARTS = 4
"""Random starts of every alignment, those of members and of decoys alike."""
DECOY_DRAWS = 2**28 + 1


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """The value of every bar, of members and of decoys, and how well it tells them apart."""
    if evidence.functions is None:
        return
    bars = _Bars(evidence, evidence.functions(evidence.ends))
    rows = [*bars.behavioural(), *bars.parametric(), *bars.causal()]
    yield from rows
    yield from separations(evidence, rows)


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
