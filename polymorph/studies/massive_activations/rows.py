"""Do a few dimensions carry the residual stream, and the numbers of the other studies with it?

In language models some axes of the residual stream are larger than the others by orders of magnitude (Sun et al.
2024, arXiv 2402.17762). They then hold most of the variance, and R² says whether a map gets them right, whatever it
does to the rest. Here are those axes, and R², R and the explained variance of SAEs with and without them; the
control leaves out as many others at random. To leave axes out is to project onto what is orthogonal to them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment import rotation
from polymorph.alignment.axes import Axes, without
from polymorph.alignment.families import FITS
from polymorph.alignment.gaps import Scores
from polymorph.alignment.jackknife import jackknife_interval
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.regression import affine_cv
from polymorph.alignment.support import filled, support
from polymorph.evidence.dictionaries import VARIANTS, saes_at, score_rows, some_documents
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Role, Row
from polymorph.saes.scores import Reconstruction, reconstruction
from polymorph.studies.ladder.rows import CONVENTION, check_site
from polymorph.studies.sae_transfer.rows import DOCUMENTS, EV

STUDY = "massive_activations"
NAMED = 8
"""Massive axes of a member that have rows of their own."""
MOST = 1 / 4
"""Share of d that may be left out: without more, there would be another stream to compare."""
ALL, WITHOUT, RANDOM = "all", "without_massive", "without_random"
Bases = Mapping[str, Float[Tensor, "d k"] | None]
"""By `axes`, orthonormal columns of what is left; None where that is everything."""


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Of every member its massive axes; where any member has one, R², R and SAEs with and without those of all.

    The axes left out are the same for every pair of a site. Intervals hold the axes, the maps and the SAEs fixed.
    """
    for site in evidence.sites:
        moments = evidence.at(site)
        check_site(site, moments, evidence.pairs)
        for member in evidence.new_members():
            yield from _member_rows(evidence, site, member, evidence.member_blocks(moments.fit, member))
        bases = _bases(evidence, site)
        for axes, basis in bases.items():
            yield from _pair_rows(evidence, site, axes, *_left(basis, moments.fit, moments.eval))
        if bases:
            yield from _sae_rows(evidence, site, bases, moments.fit.total())


def _member_rows(evidence: Evidence, site: str, member: int, blocks: PairMoments) -> Iterator[Row]:
    held = filled(blocks)
    whole = Axes.of(held.total(), evidence.coordinates)
    rest = Axes.of(held.leave_one_out(), evidence.coordinates) if len(held.n) > 1 else None
    seed, step = evidence.ends[member]
    about: dict[str, Any] = {"target": seed, "target_step": step, "n_seeds": 1, "n_tokens": int(held.n.sum())}

    def row(metric: str, of: Callable[[Axes], Tensor], **more: Any) -> Row:
        value = of(whole)
        bounds = (None, None) if rest is None else map(float, jackknife_interval(value, of(rest)))
        low, high = bounds
        return evidence.row(STUDY, site, "fit", metric, float(value), low=low, high=high, **about, **more)

    count, order = int(whole.massive.sum()), whole.times.argsort(descending=True)
    yield evidence.row(STUDY, site, "fit", "massive_dimensions", float(count), **about)
    yield row("rms_max_over_median", partial(_times, order[0]))
    yield row("massive_variance_share", partial(_share, order[:count]))
    for axis in order[: min(count, NAMED)]:
        own = {"extra": {"axis": int(axis)}}
        yield row("rms_over_median", partial(_times, axis), **own)
        yield row("axis_variance_share", partial(_share, axis), **own)


def _times(axis: Tensor, axes: Axes) -> Tensor:
    return axes.times[..., axis]


def _share(some: Tensor, axes: Axes) -> Tensor:
    """Of one axis, or of some together."""
    return axes.share[..., some] if some.ndim == 0 else axes.share[..., some].sum(-1)


def _bases(evidence: Evidence, site: str) -> Bases:
    """Of everything, of what is left without the massive axes of any member, and without others; or none at all."""
    fit, root = evidence.totals(site)[0], evidence.root
    members = (root.member_blocks(fit[None], member)[0] for member in range(len(root.ends)))
    largest = [Axes.of(member, evidence.coordinates) for member in members]
    times = torch.stack([axes.times for axes in largest]).amax(0).cpu()
    d, order = fit.xx.shape[-1], times.argsort(descending=True)
    count = min(int(torch.stack([axes.massive for axes in largest]).any(0).sum()), int(MOST * d))
    if count == 0:
        return {}
    others = order[count:].sort().values
    generator = chunk_generator(evidence.seed, 2**29 + root.sites.index(site))
    drawn = others[torch.randperm(len(others), generator=generator)[:count]]
    left = {WITHOUT: order[:count], RANDOM: drawn}
    bases = {axes: without(some, d, evidence.coordinates).to(fit.xx) for axes, some in left.items()}
    return {ALL: None, **bases}


def _left(basis: Tensor | None, *moments: PairMoments) -> list[PairMoments]:
    return [each if basis is None else each.within(basis) for each in moments]


def _role(axes: str, otherwise: Role) -> Role:
    return "control" if axes == RANDOM else otherwise


def _pair_rows(
    evidence: Evidence, site: str, axes: str, fit: PairMoments, score: PairMoments
) -> Iterator[Row]:
    """Both directions of every pair, from moments [blocks, pairs] of what is left."""
    blocks = len(filled(score).n)
    determined = support(fit, score).determined.tolist() if blocks > 1 else None
    for backward, of, on in ((False, fit, score), (True, fit.swap(), score.swap())):
        about: dict[str, Any] = {
            "backward": backward,
            "role": _role(axes, "estimate"),
            "extra": {"axes": axes},
        }
        whole, scored = of.total(), Scores(on)
        rigid = {name: FITS[name](whole) for name in ("identity", "orthogonal")}
        for name, fitted in (rigid | {"affine": affine_cv(filled(of))}).items():
            value, bounds = scored.r2(fitted)
            own: dict[str, Any] = {"map": name, "convention": CONVENTION, **about}
            own["n_tokens"] = int(scored.whole.n.min())
            yield from evidence.pair_rows(STUDY, site, "eval", "r2", value, bounds, **own)
        about |= {"map": "orthogonal", "n_tokens": int(whole.n.min())}
        yield from _geometry(evidence, site, rigid["orthogonal"], determined, about)


def _geometry(
    evidence: Evidence, site: str, fitted: Map, determined: list[int] | None, about: Mapping[str, Any]
) -> Iterator[Row]:
    """‖R − I‖ beside its scale, and how many dimensions of R the data determine, as in the ladder."""
    k, own = fitted.weight.shape[-1], (STUDY, site, "fit")
    distance = rotation.frobenius_from_identity(fitted.weight)
    rows = evidence.pair_rows(*own, "frobenius_from_identity", distance, **about)
    scale = torch.full_like(distance, rotation.frobenius_haar_scale(k))
    yield from evidence.pair_rows(*own, "frobenius_haar_scale", scale, **about)
    if determined is None:
        yield from rows
        return
    for row, r in zip(rows, determined, strict=True):
        yield replace(row, convention="determined" if r == k else "undetermined")
    yield from evidence.pair_rows(*own, "determined_dimension", torch.tensor(determined).double(), **about)


def _sae_rows(evidence: Evidence, site: str, bases: Bases, fit: PairMoments) -> Iterator[Row]:
    """Explained variance of the SAEs of the members on their own tokens, in what is left."""
    new = evidence.new_members()
    saes = {use: sae for use, sae in saes_at(evidence, site, fit, VARIANTS).items() if use[0] in new}
    source = some_documents(evidence.source, DOCUMENTS)
    sums = {(use, axes): Reconstruction(evidence.blocks) for use in saes for axes in bases}
    for chunk in source.chunks("eval") if saes else ():
        for use, trained in saes.items():
            x = chunk.values[site][use[0]]
            both = torch.stack([x.double(), reconstruction(trained.sae, x).double()])
            for axes, basis in bases.items():
                own, rebuilt = both if basis is None else both @ basis
                sums[use, axes].update(own, rebuilt, chunk.document)
    for (use, axes), found in sums.items():
        end = evidence.ends[use[0]]
        about: dict[str, Any] = {"variant": saes[use].variant, "role": _role(axes, "ceiling")}
        about |= {"n_tokens": found.tokens, "n_documents": source.documents["eval"]}
        scores = {EV: found.explained_variance("centred")}
        for row in score_rows(evidence, STUDY, site, (end, end), use[1], scores, **about):
            yield replace(row, extra={**row.extra, "axes": axes})
