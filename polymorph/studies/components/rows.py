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
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.components.ablation import ablations_of
from polymorph.components.agreement import (
    ASSIGNMENTS,
    STATISTICS,
    Slots,
    Tested,
    leave_one_out,
    pearson,
)
from polymorph.components.naming import Component
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.function_scores import SUM
from polymorph.evidence.rows import Row
from polymorph.studies.components import STUDY as DECLARED
from polymorph.studies.components.members import (
    ABLATION,
    INTEGRATED,
    LEAST_COMPONENTS,
    PATCHING,
    Measured,
    directed_pairs,
    measured_members,
    pair_generator,
    pair_labels,
    score_row,
)
from polymorph.studies.components.rankings import ranking_rows

PAPER = "paper"
"""The convention of integrated gradients at the paper's points."""


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Effects of every member, what predicts them, and what one member's predictions are worth on another."""
    if evidence.functions is None:
        return
    members = measured_members(evidence)
    for member in members:
        yield from _member_rows(evidence, member)
    if DECLARED.request(evidence) is not None:
        return
    for source, target in [(m, m) for m in range(len(members))] + directed_pairs(evidence):
        yield from _Pair(evidence, members[source], members[target]).rows()
    for member in members:
        yield from _previous_rows(evidence, member)
        yield from ranking_rows(evidence, members, member)


def _member_rows(evidence: Evidence, member: Measured) -> Iterator[Row]:
    """`loss` of the member; of every component its effect by head and in all, and what gradients say of it.

    Of those that were asked for, if any were: then nothing is said of how members agree, which is about all.
    """
    asked = DECLARED.request(evidence)
    about: dict[str, Any] = {"target": member.end[0], "target_step": member.end[1], "n_seeds": 1}

    def row(metric: str, totals: Tensor, **more: Any) -> Row:
        return score_row(evidence, member, metric, member.per_token(totals), **about, **more)

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
                    yield score_row(evidence, member, metric, torch.tensor(float(value)), **about, **key)


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
        return pair_labels(self.source.end, self.target.end)

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
            found = test(said[:, 0], measured[:, 0], slots, pair_generator(self.source.end, self.target.end))
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
        return score_row(self.evidence, self.target, metric, scores, **{**self.about, **more})


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
