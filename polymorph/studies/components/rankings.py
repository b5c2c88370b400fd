"""Whether the order in which one member's components matter does for another: what is lost without the first k."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.components.agreement import (
    Slots,
)
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
from polymorph.evidence.rows import Row
from polymorph.studies.components.members import (
    ABLATION,
    INTEGRATED,
    Measured,
    directed_pairs,
    pair_generator,
    pair_labels,
    score_row,
)

PARTS, BLOCK, STREAM = "parts", "block", "stream"
"""In the column `kind` of what is about all heads and MLPs, all blocks, or all streams together."""


RANKINGS = 24
"""Random ones, so that no p-value is below 0.04."""


def ranking_rows(evidence: Evidence, members: Sequence[Measured], target: Measured) -> Iterator[Row]:
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
            yield score_row(evidence, target, "cumulative_effect", random[:, place].mean(), **told, **key)
    for place, size in enumerate(rankings.sizes):
        key = {"role": "ceiling", "order": "own", "removed": size, **about}
        yield score_row(evidence, target, "cumulative_effect", rankings.own[place], **key)
    index = {end: place for place, end in enumerate(evidence.ends)}
    place = index[target.end]
    for source in [place, *(first for first, second in directed_pairs(evidence) if second == place)]:
        if members[source].predicts(PARTS):
            yield from _ranked_rows(evidence, rankings, members[source])


def _ranked_rows(evidence: Evidence, rankings: "Rankings", source: Measured) -> Iterator[Row]:
    target = rankings.target
    about = {
        **pair_labels(source.end, target.end),
        "kind": PARTS,
        "attribution": INTEGRATED,
        "order": "source",
    }
    for assignment in rankings.curves:
        if assignment == "best" and source.end == target.end:
            continue
        told = rankings.of(source, assignment)
        key = {"assignment": assignment, **about}
        for size, scores in zip(rankings.sizes, told.curve, strict=True):
            yield score_row(evidence, target, "cumulative_effect", scores, removed=size, **key)
        yield score_row(evidence, target, "curve_distance", told.distance, **key)
        for metric, (scores, null) in told.tested.items():
            yield score_row(evidence, target, metric, scores, **key)
            p = (1 + (null >= float(scores[0])).sum()) / (1 + len(null))
            yield score_row(evidence, target, "p_value", p, statistic=metric, **key)


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
        drawn = random_rankings(len(self.components), RANKINGS, pair_generator(self.target.end))
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
