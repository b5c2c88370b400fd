"""Do the same parts matter in every member, and can that be predicted?

A component of a member, a head, an MLP or a whole block, is held at its mean: what the member then loses is its
*measured* effect. Gradients predict it: *integrated gradients* exactly, up to a sum over points, whatever the model
(that is their completeness, so that agreement within one member says nothing about the member), and *attribution
patching* by the slope at the clean run. What one member predicts for another is the question. Heads have no names that
members share, so it is asked with heads as they are numbered and under the best assignment, each beside its null. The
effects do not know in which basis a residual stream is written: a rotated copy agrees with r = 1 without any alignment.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.pairings import chunk_generator
from polymorph.components.ablation import Ablations, Documents, ablations_of, documents_of, kinds_of
from polymorph.components.agreement import (
    ASSIGNMENTS,
    STATISTICS,
    Slots,
    Tested,
    leave_one_out,
    pearson,
)
from polymorph.components.attribution import Attribution, attributions, cost
from polymorph.components.cumulative import (
    Curves,
    assigned,
    correlation,
    random_rankings,
    ranking,
    sizes_of,
    sums,
)
from polymorph.components.naming import Component
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.function_scores import SUM
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Role, Row
from polymorph.saes.scores import bounded, by_block, with_and_without
from polymorph.studies.components import STUDY as COMPONENTS

STUDY = "components"
PARTS, BLOCK, STREAM = "parts", "block", "stream"
"""In the column `kind` of what is about all heads and MLPs, all blocks, or all streams together."""
ABLATION, INTEGRATED, PATCHING = "ablation", "integrated_gradients", "attribution_patching"
PAPER = "paper"
"""The convention of integrated gradients at the paper's points."""
LEAST_COMPONENTS = 3
TOKENS, LEAST_DOCUMENTS = 768, 8
"""Of the eval split: whole documents, and at least so many of them."""
CORRELATIONS = frozenset({"effect_correlation", "cumulative_correlation"})
SURE = 1 - 1e-12
"""No correlation is taken for nearer to 1 than rounding lets it be known."""
RANKINGS = 24
"""Random ones, so that no p-value is below 0.04."""
NULL_DRAWS = 2**28
AFFORDED: Mapping[str, float] = {"cpu": 1e13}
AFFORDED_ELSEWHERE = 4e15
"""Floating-point operations of one member and family: minutes. What takes more is not predicted, only measured."""


def applies(evidence: Evidence) -> bool:
    """Only where members are models."""
    return evidence.functions is not None


@dataclass(frozen=True)
class Measured:
    """One member without each of its components, and what gradients predict, a family (`kind`) at a time."""

    end: End
    ablations: Ablations
    blocks: int
    _found: dict[str, list[Attribution] | None] = field(default_factory=dict)

    @property
    def documents(self) -> Documents:
        return self.ablations.documents

    @cached_property
    def families(self) -> dict[str, list[Component]]:
        return kinds_of(self.ablations.parts.components)

    def attributions(self, kind: str) -> list[Attribution] | None:
        """Of the components of a family; None where they take too long on this device."""
        if kind not in self._found:
            some = self.families[kind]
            afforded = AFFORDED.get(self.ablations.functions.device.type, AFFORDED_ELSEWHERE)
            within = cost(self.ablations, some) <= afforded
            self._found[kind] = attributions(self.ablations, some) if within else None
        return self._found[kind]

    def predicts(self, kind: str) -> bool:
        """Whether there is a prediction to correlate: of three components at least."""
        return len(self.families.get(kind, ())) >= LEAST_COMPONENTS and self.attributions(kind) is not None

    def per_token(self, totals: Float[Tensor, "*batch documents"]) -> Float[Tensor, "*batch scores"]:
        """Nats a token, of all documents and then without each block of them."""
        place = torch.arange(len(self.documents.tokens))
        tokens = by_block(self.documents.tokens, place, self.blocks)
        held = tokens > 0
        sums = by_block(totals.movedim(-1, 0), place, self.blocks)[held]
        kept = with_and_without(tokens[held]).view(-1, *(1,) * (totals.ndim - 1))
        return (with_and_without(sums) / kept).movedim(0, -1)

    def effects(self, kind: str, attribution: str, paper: bool = False) -> Float[Tensor, "n scores"] | None:
        """Of all components of a family; None where they were not predicted."""
        if attribution == ABLATION:
            each = [self.ablations.effect([component]) for component in self.families[kind]]
        else:
            if (found := self.attributions(kind)) is None:
                return None
            name = "patching" if attribution == PATCHING else "paper" if paper else "integrated"
            each = [getattr(own, name) for own in found]
        return self.per_token(torch.stack(each))


def measured_members(evidence: Evidence) -> list[Measured]:
    """The members of a comparison on the same documents; computed once for all studies that read them."""
    return evidence.once(STUDY, lambda: list(_measured(evidence, evidence.ends, TOKENS)))


def _measured(evidence: Evidence, ends: Sequence[End], tokens: int) -> Iterator[Measured]:
    assert evidence.functions is not None
    functions = evidence.functions(ends)
    documents = documents_of(functions, tokens, LEAST_DOCUMENTS)
    for member, end in enumerate(ends):
        yield Measured(end, ablations_of(functions, member, documents), evidence.blocks)


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Effects of every member, what predicts them, and what one member's predictions are worth on another."""
    if evidence.functions is None:
        return
    members = measured_members(evidence)
    for member in members:
        yield from _member_rows(evidence, member)
    if evidence.components is not None:
        return
    for source, target in [(m, m) for m in range(len(members))] + _directed(evidence):
        yield from _Pair(evidence, members[source], members[target]).rows()
    for member in members:
        yield from _previous_rows(evidence, member)
        yield from _ranking_rows(evidence, members, member)


def _directed(evidence: Evidence) -> list[tuple[int, int]]:
    return [pair for first, second in evidence.index for pair in ((first, second), (second, first))]


def bounded_correlation(r: Float[Tensor, "scores"]) -> tuple[float, float | None, float | None]:
    """As `bounded`, the jackknife on Fisher's scale, artanh r: no interval of a correlation passes 1."""
    _, low, high = bounded(r.clamp(-SURE, SURE).atanh())
    return float(r[0]), None if low is None else math.tanh(low), None if high is None else math.tanh(high)


def _row(evidence: Evidence, on: Measured, metric: str, scores: Tensor, **about: Any) -> Row:
    """With the interval over documents of the member that was run; what is None is left out of the key."""
    of = (
        bounded_correlation if metric in CORRELATIONS and about.get("statistic") != "concordance" else bounded
    )
    value, low, high = of(scores) if scores.ndim else (float(scores), None, None)
    extra = {name: about.pop(name) for name in COMPONENTS.columns if name in about}
    documents = {"n_documents": len(on.documents.tokens), "n_tokens": on.documents.n_tokens}
    bounds = {"low": low, "high": high}
    about = {**bounds, **documents, **about}
    known = {name: own for name, own in extra.items() if own is not None}
    return evidence.row(STUDY, None, "eval", metric, value, extra=known, **about)


def _member_rows(evidence: Evidence, member: Measured) -> Iterator[Row]:
    """`loss` of the member; of every component its effect by head and in all, and what gradients say of it.

    Of those that were asked for, if any were: then nothing is said of how members agree, which is about all.
    """
    asked = evidence.components
    about: dict[str, Any] = {"target": member.end[0], "target_step": member.end[1], "n_seeds": 1}

    def row(metric: str, totals: Tensor, **more: Any) -> Row:
        return _row(evidence, member, metric, member.per_token(totals), **about, **more)

    clean = _with_sum(member.ablations.losses())
    for head, own in clean.items():
        yield row("loss", own, head=head)
    for kind, components in member.families.items():
        predicted = member.attributions(kind)
        for place, component in enumerate(components):
            if asked is not None and component.name not in asked:
                continue
            key: dict[str, Any] = {"kind": component.kind, "component": component.name}
            for head, ablated in _with_sum(member.ablations.losses([component])).items():
                yield row("ablation_effect", ablated - clean[head], head=head, **key)
            if predicted is not None:
                said, key = predicted[place], {**key, "head": list(clean)[-1]}
                yield row(PATCHING, said.patching, **key)
                yield row(INTEGRATED, said.integrated, **key)
                yield row(INTEGRATED, said.paper, convention=PAPER, **key)
                for metric, value in (("ig_points", said.points), ("ig_error", said.error)):
                    yield _row(evidence, member, metric, torch.tensor(float(value)), **about, **key)


def _with_sum(by_head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every head, and their sum last, where there are several."""
    together = {} if len(by_head) == 1 else {SUM: torch.stack([*by_head.values()]).sum(0)}
    return {**by_head, **together}


@dataclass(frozen=True)
class _Pair:
    """What a source says of a target, which may be the source itself."""

    evidence: Evidence
    source: Measured
    target: Measured

    @property
    def within(self) -> bool:
        return self.source.end == self.target.end

    @property
    def about(self) -> dict[str, Any]:
        return _labels(self.source.end, self.target.end)

    def rows(self) -> Iterator[Row]:
        for kind, components in self.target.families.items():
            slots = Slots.of(components)
            measured = self.target.effects(kind, ABLATION)
            assert measured is not None
            for attribution, paper in (
                (INTEGRATED, False),
                (INTEGRATED, True),
                (PATCHING, False),
                (ABLATION, False),
            ):
                said = self.source.effects(kind, attribution, paper)
                if said is None or len(said) < LEAST_COMPONENTS or (attribution == ABLATION and self.within):
                    continue
                key = {"kind": kind, "attribution": attribution, "convention": PAPER if paper else None}
                yield from self.agreement(components, slots, said, measured, key)

    def agreement(
        self,
        components: Sequence[Component],
        slots: Slots,
        said: Float[Tensor, "n scores"],
        measured: Float[Tensor, "n scores"],
        key: dict[str, Any],
    ) -> Iterator[Row]:
        """Under the names, and across members under the best assignment; of blocks there is one assignment alone."""
        for assignment, test in ASSIGNMENTS.items():
            if assignment == "best" and (self.within or slots.orders == 1 or key.get("convention")):
                continue
            found = test(said[:, 0], measured[:, 0], slots, _generator(self.source.end, self.target.end))
            if math.isnan(found.value):  # one side does not vary
                continue
            own = {**key, "assignment": assignment if slots.orders > 1 else None}
            x, y = said[found.order].mT, measured.mT
            if key.get("convention"):  # the paper's number, beside those that are read
                yield self.row("effect_correlation", pearson(x, y), statistic="pearson", **own)
                continue
            for statistic, of in STATISTICS.items():
                yield self.row("effect_correlation", of(x, y), statistic=statistic, **own)
            for component, scores in zip(components, leave_one_out(x, y).unbind(-1), strict=True):
                if bool(scores.isfinite().all()):
                    left = {"statistic": "leave_one_out", "component": component.name}
                    yield self.row("effect_correlation", scores, **left, **own)
            yield from self.null(found, own)

    def null(self, found: Tested, own: dict[str, Any]) -> Iterator[Row]:
        """The mean over the assignments of the null and 95 % of them, and the share of them that reach the value."""
        if found.null is None or found.p_value is None:
            return
        ends = found.null.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        told = {"statistic": "pearson", "role": "null", "low": ends[0], "high": ends[1]}
        yield self.row("effect_correlation", found.null.mean(), **told, **own)
        yield self.row("p_value", torch.tensor(found.p_value), statistic="pearson", **own)

    def row(self, metric: str, scores: Tensor, **more: Any) -> Row:
        return _row(self.evidence, self.target, metric, scores, **{**self.about, **more})


def _labels(source: End, target: End) -> dict[str, Any]:
    """Of a pair; what a member says of itself is what can be reached at all."""
    role: Role = "ceiling" if source[0] == target[0] else "estimate"
    steps = {"source_step": source[1], "target_step": target[1], "n_seeds": len({source[0], target[0]})}
    return {"source": source[0], "target": target[0], "role": role, **steps}


def _generator(*ends: End) -> torch.Generator:
    """Of the ends alone, so that the same rows follow whatever else is computed with them."""
    return chunk_generator(NULL_DRAWS, *(number for end in ends for number in end))


def _previous_rows(evidence: Evidence, member: Measured) -> Iterator[Row]:
    """The ceiling of what members can share: effects of the same member at its previous checkpoint."""
    steps = next((own.steps for own in evidence.histories if own.seed == member.end[0]), ())
    earlier = [step for step in steps if 0 < step < member.end[1]]
    if not earlier or evidence.functions is None:
        return
    functions = evidence.functions([(member.end[0], earlier[-1])])
    before = ablations_of(functions, 0, member.documents)
    pair = _Pair(evidence, Measured((member.end[0], earlier[-1]), before, member.blocks), member)
    for kind, components in member.families.items():
        said, measured = pair.source.effects(kind, ABLATION), member.effects(kind, ABLATION)
        assert said is not None
        assert measured is not None
        if len(components) >= LEAST_COMPONENTS:
            slots = Slots.of(components)
            yield from pair.agreement(
                components, slots, said, measured, {"kind": kind, "attribution": ABLATION}
            )


def _ranking_rows(evidence: Evidence, members: Sequence[Measured], target: Measured) -> Iterator[Row]:
    """What the rankings of all who predict come to on one target, which is run once for all of them."""
    if not target.predicts(PARTS):
        return
    rankings = Rankings(target)
    about: dict[str, Any] = {
        "target": target.end[0],
        "target_step": target.end[1],
        "n_seeds": 1,
        "kind": PARTS,
    }
    for assignment, curves in rankings.curves.items():
        random = curves.random[..., 0]
        ends = random.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
        for place, size in enumerate(rankings.sizes):
            key = {"assignment": assignment, "removed": size, **about}
            told = {
                "role": "null",
                "order": "random",
                "low": float(ends[0, place]),
                "high": float(ends[1, place]),
            }
            yield _row(evidence, target, "cumulative_effect", random[:, place].mean(), **told, **key)
    for place, size in enumerate(rankings.sizes):
        key = {"role": "ceiling", "order": "own", "removed": size, **about}
        yield _row(evidence, target, "cumulative_effect", rankings.own[place], **key)
    index = {end: place for place, end in enumerate(evidence.ends)}
    place = index[target.end]
    for source in [place, *(first for first, second in _directed(evidence) if second == place)]:
        if members[source].predicts(PARTS):
            yield from _ranked_rows(evidence, rankings, members[source])


def _ranked_rows(evidence: Evidence, rankings: "Rankings", source: Measured) -> Iterator[Row]:
    target = rankings.target
    about = {**_labels(source.end, target.end), "kind": PARTS, "attribution": INTEGRATED, "order": "source"}
    for assignment in rankings.curves:
        if assignment == "best" and source.end == target.end:
            continue
        told = rankings.of(source, assignment)
        key = {"assignment": assignment, **about}
        for size, scores in zip(rankings.sizes, told.curve, strict=True):
            yield _row(evidence, target, "cumulative_effect", scores, removed=size, **key)
        yield _row(evidence, target, "curve_distance", told.distance, **key)
        for metric, (scores, null) in told.tested.items():
            yield _row(evidence, target, metric, scores, **key)
            p = (1 + (null >= float(scores[0])).sum()) / (1 + len(null))
            yield _row(evidence, target, "p_value", p, statistic=metric, **key)


@dataclass(frozen=True)
class Ranked:
    """A ranking on a target: A(k), its distance from the target's own, and what is tested, each with its null."""

    curve: Float[Tensor, "sizes scores"]
    distance: Float[Tensor, "scores"]
    tested: Mapping[str, tuple[Float[Tensor, "scores"], Float[Tensor, "orders"]]]


@dataclass(frozen=True)
class Rankings:
    """One target without the first k components of rankings; a set of components is run once."""

    target: Measured

    @property
    def components(self) -> Sequence[Component]:
        return self.target.families[PARTS]

    @cached_property
    def sizes(self) -> list[int]:
        return sizes_of(len(self.components))

    @cached_property
    def effects(self) -> Float[Tensor, "n scores"]:
        measured = self.target.effects(PARTS, ABLATION)
        assert measured is not None
        return measured

    def curve(self, order: Tensor) -> Float[Tensor, "sizes scores"]:
        named = [self.components[place] for place in order.tolist()]
        return self.target.per_token(self.target.ablations.curve(named, self.sizes))

    @cached_property
    def own(self) -> Float[Tensor, "sizes scores"]:
        return self.curve(ranking(self.effects[:, 0]))

    @cached_property
    def curves(self) -> dict[str, Curves]:
        """By assignment: random rankings as they are, and with the heads of each layer in the target's order."""
        slots = Slots.of(self.components)
        drawn = random_rankings(len(self.components), RANKINGS, _generator(self.target.end))
        orders = {"name": drawn}
        if slots.orders > 1:
            orders["best"] = [assigned(order, slots, self.effects[:, 0]) for order in drawn]
        return {
            name: Curves(torch.stack([self.curve(order) for order in some]), self.own)
            for name, some in orders.items()
        }

    def of(self, source: Measured, assignment: str) -> Ranked:
        """By the integrated gradients of a source, its heads standing for the target's under an assignment."""
        said = source.effects(PARTS, INTEGRATED)
        assert said is not None
        if assignment == "best":
            said = said[Slots.of(self.components).best(said[:, 0], self.effects[:, 0])]
        order, curves = ranking(said[:, 0]), self.curves[assignment]
        curve, predicted = self.curve(order), sums(said, order, self.sizes)
        both = torch.cat([curve[None], curves.random])
        scores = {"cumulative_correlation": correlation(predicted, both), "ranking_gain": curves.gain(both)}
        tested = {metric: (own[0], own[1:, 0]) for metric, own in scores.items() if own is not None}
        return Ranked(curve, curves.distance(curve), tested)
