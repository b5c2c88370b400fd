"""Does the SAE of one member explain another, and is that more than a matched covariance explains?

The SAE of the source is used on the target through a map there and back, `map` naming the family of both: the
way back is the inverse, but of `reduced_rank` and `affine` the map fitted the other way round, because an inverse
would blow up what these shrink. Maps are fitted on the fit split; scores are on the first eval documents, because
an SAE costs far more than a map.

Explained variance after alignment is high wherever covariances match, so beside it stand maps that have not seen
the pairing, and what the pairing gains over the one that matches covariances. That one is not always the highest
of them: where features are one-sided a wrong sign costs more than an arbitrary rotation. The control
`tokens_permuted` of `affine` is another estimator than the estimate beside it: its ridge is tiny, that of the
estimate cross-validated. Spliced into the target in place of the site, a reconstruction also has to carry what the
target computes from it. Intervals hold the maps and the SAEs fixed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from polymorph.alignment.collect import SiteMoments
from polymorph.alignment.controls import gaussian_cross
from polymorph.alignment.families import FITS, fit_ladder
from polymorph.alignment.fit import orthogonal
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.support import filled
from polymorph.evidence.dictionaries import (
    DRAWS,
    VARIANTS,
    Use,
    by_covariance,
    saes_at,
    score_rows,
    some_documents,
)
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Row
from polymorph.models.activations import ActivationSource, Spliceable
from polymorph.saes.scores import (
    Metric,
    Route,
    SAEScores,
    Spliced,
    mean_metrics,
    pairing_gain,
    reconstruction,
)
from polymorph.saes.trained import TrainedSAE, Variant

STUDY = "sae_transfer"
DOCUMENTS = 128
"""Eval documents that are scored and spliced, where the source is models; of any other source all are."""
CONTROLLED = ("orthogonal", "affine")  # fitted to permuted tokens: one rigid map and the freest one
LIVE = ("identity", "orthogonal")
"""Maps that are followed at every checkpoint."""
EV: Metric = ("explained_variance", "centred")


def applies(evidence: Evidence) -> bool:
    """Only where a member has an SAE at the step at which it is compared."""
    there = evidence.dictionaries
    return any(
        step in there.steps(seed, site, family, variant)
        for family in there.families()
        for seed, step in evidence.ends
        for site in evidence.sites
        for variant in VARIANTS
    )


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Every SAE on its own member, as the ceiling, and on those it is paired with; a missing SAE has no rows.

    `explained_variance` with the convention `centred` and `fvu` are about the target's activations,
    `explained_variance` with the convention `paper` and `l0` and `live_fraction` about what the SAE sees.
    `pairing_gain` is left out where the covariance alone does as well as the pairing could, and
    `loss_recovered` where putting the mean in place of the site costs nothing. `ValueError` where an SAE has
    another width than the site.
    """
    if not applies(evidence):
        return
    source = some_documents(evidence.source, DOCUMENTS)
    for site in evidence.sites:
        moments = evidence.at(site)
        saes = saes_at(evidence, site, moments.fit, VARIANTS)
        if saes:
            yield from _Site(evidence, site, moments, source, saes).rows()


def live_rows(evidence: Evidence, variant: Variant) -> Iterator[Row]:
    """Of the same rows those that a checkpoint is worth: explained variance own, naive, mapped by the orthogonal map
    and by one that matches the covariances alone, and what the pairing gains."""
    source = some_documents(evidence.source, DOCUMENTS)
    for site in evidence.sites:
        moments = evidence.at(site)
        if saes := saes_at(evidence, site, moments.fit, (variant,)):
            about = _Site(evidence, site, moments, source, saes, live=True)
            yield from (row for row in about.scored() if row.metric == EV[0])
            yield from about.gains()


@dataclass(frozen=True)
class _Way:
    """The maps of all pairs at a site, one way round."""

    moments: SiteMoments
    live: bool = False

    @cached_property
    def ladder(self) -> dict[str, Map]:
        if self.live:
            return {name: FITS[name](self.fit) for name in LIVE}
        return fit_ladder(filled(self.moments.fit))

    @cached_property
    def permuted(self) -> dict[str, Map]:
        shuffled = self.moments.fit_tokens_permuted.total()
        return {name: FITS[name](shuffled) for name in CONTROLLED}

    @cached_property
    def fit(self) -> PairMoments:
        return self.moments.fit.total()


@dataclass(frozen=True)
class _Site:
    """One site: the SAEs of the members by place and family, and all that they are used on."""

    evidence: Evidence
    site: str
    moments: SiteMoments
    source: ActivationSource
    saes: Mapping[tuple[int, str], TrainedSAE]
    live: bool = False
    """Whether a few maps are enough."""

    def rows(self) -> Iterator[Row]:
        yield from self.scored()
        yield from self.gains()
        yield from self.splices()

    def scored(self) -> Iterator[Row]:
        """Everything that one pass over the activations tells."""
        for (place, family), scores in self.scores.items():
            use = self.uses[place]
            if use.map is None and use.source not in self.evidence.new_members():
                continue  # read for its pairs here, and reported with its first pair
            yield from self.emit(use, family, mean_metrics(scores), scores[0].tokens)
            if use.control is None:  # so that no high number in the paper's convention is read as success
                baseline = replace(use, control="predict_mean")
                yield from self.emit(baseline, family, scores[0].of_the_mean(), scores[0].tokens)

    @cached_property
    def uses(self) -> list[Use]:
        """Members on themselves, then every pair in both directions through every map and control."""
        members = sorted({place for pair in self.evidence.index for place in pair})
        uses = [Use(member, member) for member in members]
        forth, back = _Way(self.moments, self.live), _Way(self.moments.swap(), self.live)
        for pair, (first, second) in enumerate(self.evidence.index):
            ends = [self.evidence.ends[place] for place in (first, second)]
            uses += _routed(Use(first, second), back, forth, pair, ends)
            uses += _routed(Use(second, first), forth, back, pair, ends[::-1])
        return uses

    @cached_property
    def scores(self) -> dict[tuple[int, str], list[SAEScores]]:
        """By place in `uses` and family, one for every route; one pass over the activations."""
        blocks = self.evidence.blocks
        found = {
            (place, family): [SAEScores(blocks) for _ in use.routes]
            for place, use in enumerate(self.uses)
            for member, family in self.saes
            if member == use.source
        }
        for chunk in self.source.chunks("eval"):
            for (place, family), each in found.items():
                use = self.uses[place]
                sae, x = self.saes[use.source, family].sae, chunk.values[self.site][use.target]
                for route, scores in zip(use.routes, each, strict=True):
                    scores.update(sae, x, chunk.document, route)
        return found

    def gains(self) -> Iterator[Row]:
        """The pairing gain of every directed pair."""
        ev = {}
        for (place, family), scores in self.scores.items():
            use = self.uses[place]
            ev[use.source, use.target, use.map, use.control, family] = mean_metrics(scores)[EV]
        for (place, family), scores in self.scores.items():
            use = self.uses[place]
            if (use.map, use.control) != ("orthogonal", None):
                continue
            mapped, unpaired = (
                ev[use.source, use.target, use.map, c, family] for c in (None, "covariance_only")
            )
            gain = pairing_gain(mapped, unpaired, ev[use.source, use.source, None, None, family])
            if gain is not None:
                yield from self.emit(use, family, {("pairing_gain", "centred"): gain}, scores[0].tokens)

    def splices(self) -> Iterator[Row]:
        """What the target loses with a reconstruction in place of its site, and with the mean of the fit split."""
        if not isinstance(self.source, Spliceable):
            return
        for place in sorted({use.target for use in self.uses}):
            spliced = Spliced(self.source, place, self.site, self.mean(place), self.evidence.blocks)
            for use in self.uses:
                families = [family for member, family in self.saes if member == use.source]
                if use.target == place and self.is_spliced(use):
                    for family in families:
                        yield from self.spliced_rows(spliced, use, family)

    def is_spliced(self, use: Use) -> bool:
        """Every map and the control that EV cannot tell from it; its own SAE only where a member is reported."""
        if use.map is None:
            return use.source in self.evidence.new_members()
        return use.control in (None, "covariance_only")

    def spliced_rows(self, spliced: Spliced, use: Use, family: str) -> Iterator[Row]:
        sae = self.saes[use.source, family].sae
        edits = [partial(reconstruction, sae, route=route) for route in use.routes]
        losses = [spliced.loss(edit) for edit in edits]
        yield from self.emit(use, family, spliced.metrics(torch.stack(losses).mean(0)), spliced.tokens)
        if use.map is None:
            ablated = replace(use, control="predict_mean")
            yield from self.emit(ablated, family, spliced.metrics(spliced.ablated), spliced.tokens)

    def mean(self, place: int) -> Tensor:
        """Of a member's activations on the fit split [d]."""
        pair, own = next((at, own) for at, own in enumerate(self.evidence.index) if place in own)
        return (self.fit.mean_x if own[0] == place else self.fit.mean_y)[pair]

    @cached_property
    def fit(self) -> PairMoments:
        return self.moments.fit.total()

    def emit(self, use: Use, family: str, metrics: Mapping[Metric, Tensor], tokens: int) -> Iterator[Row]:
        about: dict[str, Any] = {
            "variant": self.saes[use.source, family].variant,
            "map": use.map,
            "control": use.control,
            "role": use.role,
            "n_tokens": tokens,
            "n_documents": self.source.documents["eval"],
        }
        ends = self.evidence.ends[use.source], self.evidence.ends[use.target]
        yield from score_rows(self.evidence, STUDY, self.site, ends, family, metrics, **about)


def _routed(use: Use, there: _Way, back: _Way, pair: int, ends: list[End]) -> Iterator[Use]:
    """A directed pair through every map of the ladder, and through maps that have not seen the pairing.

    Random ones are drawn from the ends, so that the same rows follow whatever other pairs are computed with it.
    """
    for name, fitted in there.ladder.items():
        yield replace(use, map=name, routes=(Route.of(fitted[pair], back.ladder[name][pair]),))
    for name, fitted in () if there.live else there.permuted.items():
        routes = (Route.of(fitted[pair], back.permuted[name][pair]),)
        yield replace(use, map=name, routes=routes, control="tokens_permuted")
    yield by_covariance(use, there.fit[pair], ends)
    if not there.live:
        noise = orthogonal(gaussian_cross(there.fit[pair], chunk_generator(DRAWS, *ends[0], *ends[1])))
        route = Route(there=noise, back=noise.inv)
        yield replace(use, map="orthogonal", routes=(route,), control="matched_gaussian")
