"""Are two members one model up to the symmetries of their architecture, in their weights?

The source is taken through the full gauge (the residual stream by O(d_model), heads and neurons by permutations,
factors of heads by GL(d_head), neurons by positive scales) to where its weights are nearest to the target's: `map` is
`gauge`. `identity` leaves it as it is, and `stream` takes one R from the activations of all sites, and aligns heads
and neurons alone. Norms are folded first, and of the vocabulary only what occurs in the probe counts.

A search over so large a group makes something of any two models: beside it stand models that have the same spectra, but
no stream in common, and untrained members, searched in the same way from fewer starts. The ceilings are the member's
own previous checkpoint, and copies of it under random elements of the gauge, which must be recovered. Weights have no
uncertainty inside a pair: intervals are of losses, and of R from activations, and what the search leaves open is told
by where its starts end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from polymorph.alignment.fit import orthogonal
from polymorph.alignment.gaps import Scores
from polymorph.alignment.gauge_measures import own_rotations
from polymorph.alignment.jackknife import jackknife_interval
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.polar import polar
from polymorph.alignment.support import filled, support
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import End, PairLabel
from polymorph.evidence.rows import Row
from polymorph.models.architecture import Weights
from polymorph.studies.weights.search import (
    ACTIVATIONS,
    COPY,
    DRAWS,
    GAUGE,
    ORTHOGONAL,
    OWN_ROTATIONS,
    RESTARTS_OF_NULLS,
    STREAM,
    STUDY,
    UNTRAINED,
    Models,
    Search,
    copy_search,
    searches,
)

NULL_PAIRS = 3
"""Pairs and members, the first ones, that are searched again as nulls and as copies."""


def applies(evidence: Evidence) -> bool:
    """Only where members are models of an architecture whose symmetries are known."""
    return evidence.functions is not None and evidence.functions([]).symmetries is not None


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Of every pair the source aligned to the target; then nulls, ceilings, and R beside that from activations."""
    found = searches(evidence)
    models = found[0].models
    for place, (pair, search) in enumerate(zip(evidence.pairs, found, strict=True)):
        yield from search.rows(pair.columns())
        yield from search.heads_permuted(pair.columns("control"))
        if place < NULL_PAIRS:
            yield from _nulls(models, pair)
    for end in evidence.ends[:NULL_PAIRS]:
        yield from _copy_rows(models, end)
    for end in evidence.ends:
        if (before := models.step_of(end, last=True)) is not None:
            pair = PairLabel.between(end[0], end[0], before[1], end[1])
            yield from Search(models, pair.ends, {}, 0).rows(pair.columns())
    yield from _rotation_rows(evidence, found)


def _nulls(models: Models, pair: PairLabel) -> Iterator[Row]:
    """The same search where the source has no stream of its own, and between the untrained members."""
    generator = chunk_generator(DRAWS, *pair.ends[0], *pair.ends[1], 1)
    scattered = own_rotations(models.weights(pair.ends[0]), models.symmetries, generator)
    searches = {OWN_ROTATIONS: Search(models, pair.ends, {}, RESTARTS_OF_NULLS, scattered)}
    untrained = [models.step_of(end, last=False) for end in pair.ends]
    if (first := untrained[0]) is not None and (second := untrained[1]) is not None:
        searches[UNTRAINED] = Search(models, (first, second), {}, RESTARTS_OF_NULLS)
    for control, search in searches.items():
        (_, step), (_, its) = search.ends
        own = {**pair.columns("control"), "source_step": step, "target_step": its}
        for row in (
            *search.similarities(own, starts=False),
            *search.errors({**own, "map": GAUGE}, summary=True),
        ):
            yield replace(row, extra={**row.extra, "control": control})


def _copy_rows(models: Models, end: End) -> Iterator[Row]:
    """What the search makes of a copy that it must recover."""
    seed, step = end
    weights, search = models.weights(end), copy_search(models, end)
    about = {
        "source": seed,
        "target": seed,
        "source_step": step,
        "target_step": step,
        "role": "ceiling",
        "n_seeds": 1,
    }
    counts = {"n_documents": models.between.documents, "n_tokens": models.between.tokens}
    rows = [*search.similarities(about, starts=False)]
    for name in search.moved:
        rows += search.errors({**about, "map": name}, summary=True)
        value = _largest_difference(models, search.moved[name], weights)
        rows.append(models.row("logit_difference", value, {**about, **counts, "map": name}))
    rows += (row for row in search.paths(about) if row.metric == "loss_barrier")
    yield from (replace(row, extra={**row.extra, "control": COPY}) for row in rows)


def _largest_difference(models: Models, first: Weights, second: Weights) -> float:
    """Of any logit of any head on any token, in float64."""
    functions, largest = models.functions, 0.0
    both = [{name: own.to(functions.device) for name, own in weights.items()} for weights in (first, second)]
    for chunk in models.between.chunks:
        one, other = (functions.logits_of(weights, chunk) for weights in both)
        largest = max(largest, *(float((own - other[head]).abs().max()) for head, own in one.items()))
    return largest


def _rotation_rows(evidence: Evidence, found: Sequence[Search]) -> Iterator[Row]:
    """R from weights on the activations of every site, beside R from those of all sites and of this one."""
    own = torch.stack([search.aligned.gauge.R for search in found])
    streams = torch.stack([search.further[ACTIVATIONS] for search in found])
    for site in evidence.sites:
        moments = evidence.at(site)
        fit, scored = moments.fit.total(), Scores(moments.eval)
        whole = orthogonal(fit)
        maps = {
            GAUGE: replace(whole, weight=own.to(whole.weight)),
            STREAM: replace(whole, weight=streams.to(whole.weight)),
            ORTHOGONAL: whole,
        }
        for name, fitted in maps.items():
            about: dict[str, Any] = {"map": name, "n_tokens": int(scored.whole.n.min())}
            value, bounds = scored.r2(fitted)
            yield from evidence.pair_rows(STUDY, site, "eval", "r2", value, bounds, **about)
        yield from _agreement_rows(evidence, site, moments.fit, moments.eval, maps)


def _agreement_rows(
    evidence: Evidence, site: str, fit: PairMoments, score: PairMoments, maps: Mapping[str, Map]
) -> Iterator[Row]:
    """How well other maps do what the site's own R does to its determined directions.

    The mean over them of u_iᵀ R v_i, where the site's own R takes u_i to v_i: 1 for the same, about 0 ± 1/√(r d) for
    a Haar-random one. Intervals are of R from activations, over blocks of fit documents, with the v_i held fixed.
    """
    blocks = filled(fit)
    if len(blocks.n) < 2:
        return
    own = support(fit, score)
    refitted = polar(blocks.leave_one_out().xy)
    r = own.determined
    d = own.right.shape[-1]
    first = (torch.arange(d, device=r.device) < r[:, None]).to(own.right)
    for name in (GAUGE, STREAM):
        weight = maps[name].weight

        def agreement(R: Tensor, weight: Tensor = weight) -> Tensor:
            each = (own.right * (R.mT @ (weight @ own.right))).sum(-2)
            return (each * first).sum(-1) / r.clamp(min=1)

        value = agreement(own.matrix)
        bounds = jackknife_interval(value, torch.stack([agreement(R) for R in refitted]))
        rows = evidence.pair_rows(STUDY, site, "fit", "agreement_on_support", value, bounds, map=name)
        yield from _determined(rows, r)
    yield from evidence.pair_rows(STUDY, site, "fit", "determined_dimension", r.double(), map=ORTHOGONAL)
    half = 2 / (r.clamp(min=1) * d).double().sqrt()
    law = evidence.pair_rows(
        STUDY, site, "fit", "agreement_on_support", 0 * half, (-half, half), map=GAUGE, role="null"
    )
    yield from _determined(law, r)


def _determined(rows: Iterator[Row], r: Tensor) -> Iterator[Row]:
    """Those of the pairs of which the data determine anything."""
    return (row for row, dimension in zip(rows, r.tolist(), strict=True) if dimension > 0)
