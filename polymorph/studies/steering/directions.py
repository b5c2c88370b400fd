"""Many directions made by rule: which of them carry over, and can geometry foretell it?

All of them are added with one norm, that of the median of the member's own, so that they differ in direction alone and
random directions of that norm are the null of each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.pairings import chunk_generator
from polymorph.evidence.rows import Row
from polymorph.steering.documents import FEWEST, Resamples
from polymorph.steering.effects import Aim
from polymorph.steering.prediction import Table
from polymorph.steering.regimes import WORKS, p_values
from polymorph.studies.steering.bench import (
    FEW_MAPS,
    FEWEST_CONTRASTS,
    PREDICTORS,
    SOME_DOCUMENTS,
    SOME_TOKENS,
    SYSTEMATIC,
    Bench,
    Case,
    Read,
    Way,
    columns_of,
    null_of,
)


@dataclass
class SystematicRows:
    """Directions [contrasts members d] with their aims, each on every other member through few maps."""

    bench: Bench
    aims: Sequence[Aim]
    vectors: Float[Tensor, "contrasts members d"]
    efficiencies: dict[tuple[int, Way, str], float] = field(default_factory=dict)
    geometries: dict[tuple[int, Way], Mapping[str, float]] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        cases: list[Case] = []
        for target in self.bench.targets:
            yield from self._member(target, cases)
        works: dict[tuple[int, Way, str], bool] = {}
        for case, called, row in self.bench.regime_rows(cases, self.aims, SYSTEMATIC, None):
            yield row
            if called.regime != "undetermined":
                works[case.aim, case.way, case.carrier] = called.regime in WORKS
        if len({aim for aim, _, _ in works}) >= FEWEST_CONTRASTS:
            for name in FEW_MAPS:
                yield from self._regressions(
                    name, {key[:2]: on for key, on in works.items() if key[2] == name}
                )

    def _member(self, target: int, cases: list[Case]) -> Iterator[Row]:
        """Everything on one member."""
        bench, meter = self.bench, self.bench.meter(target, SOME_DOCUMENTS, SOME_TOKENS)
        resamples = Resamples(meter.documents, chunk_generator(bench.evidence.seed, 2**28 + 2))
        norm = float(self.vectors[:, target].norm(dim=-1).median())
        directions = norm * bench.directions(target, self.vectors.shape[-1])
        nulls, _ = null_of(meter.measure(directions, self.aims, on_target_only=True))
        about = {**bench.ends((target, target)), "split": "fit", "role": "ceiling"}
        yield bench.row("vector_norm", norm, None, SYSTEMATIC, **about)
        for place, aim in enumerate(self.aims):
            keys = [(source, name) for source in bench.ways_to(target) for name in FEW_MAPS]
            carried = [self.vectors[place, a] @ bench.carriers[a, target][name] for a, name in keys]
            vectors = torch.stack([self.vectors[place, target], *carried])
            lengths = vectors.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
            measured = meter.measure(norm * vectors / lengths, [aim])
            reads = [Read.of(measured, k, 0) for k in range(len(vectors))]
            if reads[0].documents < FEWEST:
                continue
            yield from self._rows(resamples, place, (target, target), None, reads[0], reads[0])
            outcomes = [read.outcome(nulls[place]) for read in reads]
            for (source, name), read, outcome in zip(keys, reads[1:], outcomes[1:], strict=True):
                way = (source, target)
                yield from self._rows(resamples, place, way, name, read, reads[0])
                raw = p_values(outcomes[0], outcome)
                cases.append(Case(place, way, name, raw, read.documents))
                if (place, way) not in self.geometries:
                    found = bench.geometry(way, self.vectors[place, source], self.vectors[place, target])
                    self.geometries[place, way] = found
                    yield from bench.geometry_rows(way, aim, SYSTEMATIC, found)

    def _rows(
        self, resamples: Resamples, place: int, way: Way, name: str | None, read: Read, own: Read
    ) -> Iterator[Row]:
        about = {**self.bench.ends(way), **columns_of(name)}
        about |= {"n_documents": read.documents, "n_tokens": read.concerned}
        scores = {"on_target": resamples.ratio(read.tau * read.there, read.there)}
        if name is not None and resamples.surely_positive(own.tau * own.there):
            scores["transfer_efficiency"] = resamples.ratio(read.tau * read.there, own.tau * own.there)
            self.efficiencies[place, way, name] = scores["transfer_efficiency"][0]
        for metric, (value, low, high) in scores.items():
            bounds = {"low": low, "high": high}
            yield self.bench.row(metric, value, self.aims[place], SYSTEMATIC, **about, **bounds)

    def _regressions(self, name: str, works: Mapping[tuple[int, Way], bool]) -> Iterator[Row]:
        """Of one map, over the cases in which the own vector works: does it work here, and how well?"""
        ways = sorted({way for _, way in works})
        shape = len(self.aims), len(ways)
        outcome, on = torch.full(shape, torch.nan, dtype=torch.float64), torch.zeros(shape, dtype=torch.bool)
        predicted = {one: outcome.clone() for one in PREDICTORS}
        for (aim, way), working in works.items():
            at = aim, ways.index(way)
            outcome[at] = self.efficiencies.get((aim, way, name), torch.nan)
            on[at] = working
            for one in PREDICTORS:
                predicted[one][at] = self.geometries[aim, way][one]
        about: dict[str, Any] = {"map": name, "n_documents": None}
        for key, one in enumerate(PREDICTORS):
            generator = chunk_generator(self.bench.evidence.seed, 2**28 + 3, key)
            table = Table(predicted[one], outcome, on, generator)
            if key == 0:
                share, low, high = table.share()
                bounds = {"low": low, "high": high}
                yield self.bench.row("share_working", share, None, SYSTEMATIC, **bounds, **about)
            yield from self._regression(one, table, about)

    def _regression(self, predictor: str, table: Table, about: Mapping[str, Any]) -> Iterator[Row]:
        extra = {"extra": {"predictor": predictor}}
        if table.varies:
            for role, found in (("estimate", table.rank_correlation()), ("null", table.permuted())):
                bounds = dict(zip(("low", "high"), found[1:], strict=True))
                yield self.bench.row(
                    "spearman", found[0], None, SYSTEMATIC, role=role, **bounds, **about, **extra
                )
        if (slope := table.slope()) is not None:
            bounds = dict(zip(("low", "high"), slope[1:], strict=True))
            yield self.bench.row("logistic_slope", slope[0], None, SYSTEMATIC, **bounds, **about, **extra)
