"""Does the SAE of one checkpoint explain another checkpoint of the same member?

As `sae_transfer`, along the training of one member: the SAE of `source_step` on the activations of
`target_step`, forwards and backwards, as it is and through two maps, beside the orthogonal one the control
`covariance_only`, which has not seen the pairing. On the diagonal, the ceiling, an SAE reads the checkpoint that it
was trained on. Read on a part of the probe, because k checkpoints have k² of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from polymorph.alignment.collect import collect
from polymorph.alignment.fit import identity, orthogonal
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.regression import affine_cv
from polymorph.alignment.support import filled
from polymorph.evidence.dictionaries import (
    VARIANTS,
    Use,
    by_covariance,
    check_width,
    score_rows,
    some_documents,
)
from polymorph.evidence.evidence import Evidence, History
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Row
from polymorph.models.activations import ActivationSource
from polymorph.saes.scores import Metric, Route, SAEScores, mean_metrics, placed
from polymorph.saes.trained import TrainedSAE, Variant
from polymorph.studies.trajectory.rows import CHECKPOINTS, spread

STUDY = "checkpoint_transfer"
DOCUMENTS = 64
"""Eval documents that are scored, where the source is models."""
METRICS: tuple[Metric, ...] = (
    ("explained_variance", "centred"),
    ("explained_variance", "paper"),
    ("l0", None),
)


def applies(evidence: Evidence) -> bool:
    """Only where a member has SAEs of one family at two checkpoints of a site."""
    return any(_held(evidence, history) for history in evidence.histories)


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Explained variance in both conventions, and L0, for every two checkpoints of a member that have SAEs.

    Of each family at a site at most `CHECKPOINTS` of them. `ValueError` where an SAE has another width than the
    site.
    """
    for history in evidence.histories:
        held = _held(evidence, history)
        if held:
            yield from _Member(evidence, history, held).rows()


@dataclass(frozen=True)
class _Held:
    """The checkpoints of a member that have SAEs of one family and variant at one site."""

    variant: Variant
    steps: Sequence[int]


@dataclass(frozen=True)
class _Member:
    """One member at all checkpoints that any of its SAEs needs; `held` is by site and family."""

    evidence: Evidence
    history: History
    held: Mapping[tuple[str, str], _Held]

    def rows(self) -> Iterator[Row]:
        for site in sorted({site for site, _ in self.held}):
            yield from self.at(site)

    @cached_property
    def steps(self) -> list[int]:
        return sorted({step for held in self.held.values() for step in held.steps})

    @cached_property
    def source(self) -> ActivationSource:
        return some_documents(self.history.source(self.steps), DOCUMENTS)

    def index(self, site: str) -> list[tuple[int, int]]:
        """Places in `steps` of every two checkpoints that have SAEs of one family, the earlier one first."""
        here = [held.steps for (where, _), held in self.held.items() if where == site]
        each = (sorted(self.steps.index(step) for step in steps) for steps in here)
        return sorted({(i, j) for places in each for i in places for j in places if i < j})

    def at(self, site: str) -> Iterator[Row]:
        """The rows of one site: activations are read there alone, once for the maps and once for the scores."""
        source = replace(self.source, sites=(site,))  # type: ignore[type-var]  # a dataclass
        index, blocks = self.index(site), self.evidence.blocks
        fit = collect(source, index, blocks, self.evidence.seed, controls=False).at(site).fit
        saes = self.saes(site, fit)
        scored = [
            (use, family, [SAEScores(blocks) for _ in use.routes])
            for use in self.uses(index, fit)
            for family in sorted({family for _, family in saes})
            if {(use.source, family), (use.target, family)} <= saes.keys()
        ]
        for chunk in source.chunks("eval"):
            for use, family, each in scored:
                sae, x = saes[use.source, family].sae, chunk.values[site][use.target]
                for route, scores in zip(use.routes, each, strict=True):
                    scores.update(sae, x, chunk.document, route)
        for use, family, each in scored:
            yield from self.emit(site, use, saes[use.source, family], each)

    def saes(self, site: str, fit: PairMoments) -> dict[tuple[int, str], TrainedSAE]:
        """By place in `steps` and family, where the activations are."""
        found = {}
        for (where, family), held in self.held.items():
            for step in held.steps if where == site else ():
                end = (self.history.seed, step)
                trained = self.evidence.dictionaries.read(*end, site, family, held.variant)
                if trained is None:
                    raise ValueError(
                        f"the SAE {family} of seed {end[0]} at step {step}, {site}, is listed, not there"
                    )
                check_width(trained, end, site, fit.xx.shape[-1])
                found[self.steps.index(step), family] = replace(
                    trained, sae=placed(trained.sae, fit.xx.device)
                )
        return found

    def uses(self, index: Sequence[tuple[int, int]], fit: PairMoments) -> Iterator[Use]:
        """Every checkpoint on itself, and every two of them both ways."""
        yield from (Use(place, place) for place in range(len(self.steps)))
        forth, back = _Way(fit), _Way(fit.swap())
        for pair, (first, second) in enumerate(index):
            for use, there, other in ((Use(first, second), back, forth), (Use(second, first), forth, back)):
                for name, fitted in there.maps.items():
                    yield replace(use, map=name, routes=(Route.of(fitted[pair], other.maps[name][pair]),))
                yield by_covariance(use, there.total[pair], self.ends(use))

    def ends(self, use: Use) -> tuple[End, End]:
        return (self.history.seed, self.steps[use.source]), (self.history.seed, self.steps[use.target])

    def emit(self, site: str, use: Use, trained: TrainedSAE, draws: Sequence[SAEScores]) -> Iterator[Row]:
        """The scores, and beside an estimate or a ceiling what a constant has in the paper's convention."""
        metrics = mean_metrics(draws)
        of_each = [(use, {metric: metrics[metric] for metric in METRICS})]
        if use.control is None:
            of_each.append((replace(use, control="predict_mean"), draws[0].of_the_mean()))
        for shown, values in of_each:
            yield from score_rows(
                self.evidence,
                STUDY,
                site,
                self.ends(use),
                trained.family,
                values,
                variant=trained.variant,
                map=shown.map,
                control=shown.control,
                role=shown.role,
                n_tokens=draws[0].tokens,
                n_documents=self.source.documents["eval"],
            )


def _held(evidence: Evidence, history: History) -> dict[tuple[str, str], _Held]:
    """By site and family, the first of `VARIANTS` that there is at two checkpoints of the member."""
    found = {}
    for site in evidence.sites:
        for family in evidence.dictionaries.families():
            for variant in VARIANTS:
                there = evidence.dictionaries.steps(history.seed, site, family, variant)
                steps = spread([step for step in history.steps if step in there], CHECKPOINTS)
                if len(steps) > 1 and (site, family) not in found:
                    found[site, family] = _Held(variant, steps)
    return found


@dataclass(frozen=True)
class _Way:
    """The moments [blocks pairs] of one way round, and the maps [pairs] that they fit."""

    fit: PairMoments

    @cached_property
    def total(self) -> PairMoments:
        return self.fit.total()

    @cached_property
    def maps(self) -> dict[str, Map]:
        rigid = {"identity": identity(self.total), "orthogonal": orthogonal(self.total)}
        return rigid | {"affine": affine_cv(filled(self.fit))}
