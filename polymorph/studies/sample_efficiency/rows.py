"""How many tokens does a fit need? R² on the eval split against the number of fit tokens."""

from collections.abc import Iterator
from typing import Any

import torch

from polymorph.alignment.accumulator import MomentAccumulator
from polymorph.alignment.fit import orthogonal, r2_from_moments
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.regression import affine
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row

STUDY = "sample_efficiency"
WITHIN = 0.01
FITTED = (orthogonal, affine)


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """`r2` for growing parts of the fit split, its `r2_limit`, and `tokens_to_limit` where it is reached.

    Small parts are the first tokens kept, whole documents or not; large ones are unions of document blocks.
    The limit is that of R²(n) = R²_∞ − c/n through all tokens and half of them; `tokens_to_limit` is the least
    part from which on R² stays within 0.01 of it.
    """
    for site in evidence.sites:
        moments = evidence.at(site)
        score = moments.eval.total()
        parts = list(_parts(evidence, site, moments.fit))
        for fit in FITTED:
            curve = []
            for part in parts:
                tokens = int(part.n.min())
                values = r2_from_moments(fit(part), score)
                curve.append((tokens, values))
                about: dict[str, Any] = {
                    "map": fit.__name__,
                    "n_tokens": tokens,
                    "extra": {"fit_tokens": tokens},
                }
                yield from evidence.pair_rows(STUDY, site, "eval", "r2", values, **about)
            yield from _limit(evidence, site, fit.__name__, curve)


def _parts(evidence: Evidence, site: str, blocks: PairMoments) -> Iterator[PairMoments]:
    """Moments [pairs] of 2d, 4d, … kept tokens, then of 1, 2, 4, … blocks where those are more."""
    kept = evidence.kept(site)
    tokens, d = kept.values[site].shape[1:]
    largest = 0
    size = 2 * d
    while size <= tokens:
        part = MomentAccumulator(evidence.index, blocks=1)
        part.update(kept.values[site][:, :size], kept.document[:size])
        yield part.total()
        largest, size = size, 2 * size
    count = 1
    while count <= blocks.n.shape[0]:
        part_of_blocks = blocks[:count].total()
        if int(part_of_blocks.n.min()) > max(1.5 * largest, d):
            yield part_of_blocks
        count *= 2


def _limit(evidence: Evidence, site: str, name: str, curve: list[tuple[int, torch.Tensor]]) -> Iterator[Row]:
    if len(curve) < 2:
        return
    (n_half, half), (n_all, whole) = curve[-2:]
    limit = whole + (whole - half) * n_half / (n_all - n_half)
    yield from evidence.pair_rows(STUDY, site, "eval", "r2_limit", limit, map=name, n_tokens=n_all)
    near = torch.stack([(limit - values).abs() <= WITHIN for _, values in curve])
    stays = near.flip(0).long().cumprod(0).flip(0).bool()
    for place, pair in enumerate(evidence.pairs):
        reached = [n for (n, _), there in zip(curve, stays[:, place].tolist(), strict=True) if there]
        if reached:
            yield evidence.row(
                STUDY, site, "eval", "tokens_to_limit", float(reached[0]), **pair.columns(), map=name
            )
