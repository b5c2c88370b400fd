"""Which part of R do the data determine? And what is R like there?"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from polymorph.alignment.collect import SiteMoments
from polymorph.alignment.components import r2_along
from polymorph.alignment.fit import orthogonal, similarity
from polymorph.alignment.gaps import Scores
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.regression import affine
from polymorph.alignment.support import (
    PRECISION,
    Support,
    pinned_dimension,
    privileged_axes,
    restrict,
    split_half_angle,
    support,
    trace_on_support,
)
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import ON_SUPPORT, Row

STUDY = "support"
PER_COMPONENT = "per_component"  # a convention, as ON_SUPPORT: of which part of the target


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Every pair, and as its ceiling every member against itself.

    r is `determined_dimension`. `trace_on_support`, `split_half_angle`, `pinned_dimension` and
    `privileged_axes` speak of the r determined directions alone, and are left out where there are none.
    """
    for site in evidence.sites:
        moments = evidence.at(site)
        found = support(moments.fit, moments.eval)
        for place, pair in enumerate(evidence.pairs):
            about = {**pair.columns(), "map": "orthogonal"}
            for metric, value in _measured(found[place], moments.fit[:, place]).items():
                yield evidence.row(STUDY, site, "fit", metric, value, **about)
        for backward, side in ((False, moments), (True, moments.swap())):
            yield from _components(evidence, site, side, backward)
            yield from _on_support(evidence, site, side, backward)
        yield from _selves(evidence, site)


def _measured(found: Support, fit: PairMoments) -> dict[str, float]:
    r = int(found.determined)
    values: dict[str, float] = {
        "determined_dimension": r,
        "dimension": found.strength.shape[-1],
        "rank": int(found.rank),
    }
    if r:
        values |= {
            "median_standard_error": float(_upper(found.standard_error[:r, :r]).median()),
            "split_half_angle": float(split_half_angle(fit, found, r)),
            "trace_on_support": float(trace_on_support(found, r)),
            "pinned_dimension": pinned_dimension(found, r),
            "privileged_axes": privileged_axes(found, r),
        }
    return {metric: float(value) for metric, value in values.items()}


def _upper(values: Tensor) -> Tensor:
    """The planes, once each; of a single direction, its own relative error."""
    r = values.shape[0]
    return values[*torch.triu_indices(r, r, offset=1)] if r > 1 else values.flatten()


def _selves(evidence: Evidence, site: str) -> Iterator[Row]:
    """A member against itself: its rank, and how much of R = I its own activations could determine."""
    moments = evidence.at(site)
    for member in evidence.new_members():
        seed, step = evidence.ends[member]
        fit, score = (evidence.member_blocks(split, member) for split in (moments.fit, moments.eval))
        found = support(fit, score)
        label = {"source": seed, "target": seed, "source_step": step, "target_step": step}
        for metric, value in _measured(found, fit).items():
            yield evidence.row(
                STUDY, site, "fit", metric, value, **label, role="ceiling", n_seeds=1, map="orthogonal"
            )


def _components(evidence: Evidence, site: str, moments: SiteMoments, backward: bool) -> Iterator[Row]:
    """R² in every principal component of the target, the largest first: where a map fails."""
    fit, score = moments.fit.total(), moments.eval.total()
    variance, axes = (part.flip(-1) for part in torch.linalg.eigh(fit.yy))
    there = int((variance > PRECISION * variance[:, :1]).sum(-1).min())
    for fitted in (orthogonal(fit), affine(fit)):
        values = r2_along(fitted, score, axes[..., :there])
        about: dict[str, Any] = {"backward": backward, "map": fitted.name, "convention": PER_COMPONENT}
        for component in range(there):
            about["extra"] = {"component": component}
            yield from evidence.pair_rows(STUDY, site, "eval", "r2", values[:, component], **about)


def _on_support(evidence: Evidence, site: str, moments: SiteMoments, backward: bool) -> Iterator[Row]:
    """The ladder again, on the determined directions of either side, pair by pair, where not all are."""
    found = support(moments.fit, moments.eval)
    for place, pair in enumerate(evidence.pairs):
        own, r = found[place], int(found.determined[place])
        if not 0 < r < own.strength.shape[-1]:
            continue
        fit, score = (restrict(split[:, place], own, r) for split in (moments.fit, moments.eval))
        maps = {fit_map.__name__: fit_map(fit.total()) for fit_map in (orthogonal, similarity, affine)}
        scores = Scores(score)
        label = (pair.reverse() if backward else pair).columns()
        scored = {f"r2_{name}": scores.r2(fitted) for name, fitted in maps.items()} | scores.gaps(maps)
        for metric, (value, bounds) in scored.items():
            low, high = (None, None) if bounds is None else (float(end) for end in bounds)
            about = {**label, "low": low, "high": high, "convention": ON_SUPPORT}
            yield evidence.row(STUDY, site, "eval", metric, float(value), **about)
