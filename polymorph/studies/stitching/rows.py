"""Can the upper part of one member read the lower part of another through a map? Loss of the stitched model.

The lower part of the source runs up to a site, a map carries its residual stream, the upper part of the target goes
on from there (Lenc and Vedaldi 2015; Bansal et al. 2021). It is what R² means for the function: variance that no
later part reads costs nothing here, however much of R² it holds. Maps are those of the ladder, fitted on the fit
split; what is stitched is run on the first eval documents.

Where a site holds little more than the tokens themselves, the freest map carries over what no member computed. So
beside maps that have not seen the pairing stands an untrained lower part, with maps fitted to it: what it reaches is
no sign of a shared computation. Intervals are over documents and hold the maps fixed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from polymorph.alignment.accumulator import MomentAccumulator
from polymorph.alignment.collect import SiteMoments
from polymorph.alignment.controls import covariance_only
from polymorph.alignment.families import FITS, ladder
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.regression import affine_cv
from polymorph.alignment.support import filled
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Role, Row
from polymorph.studies.equivalence.answers import UNTRAINED
from polymorph.studies.ladder.rows import CONTROLLED, UNPAIRED, check_site
from polymorph.studies.stitching.runs import (
    COVARIANCE,
    MEAN,
    PERMUTED,
    Ablated,
    Opened,
    Stitched,
    Use,
    unchanged,
)

NOT_RUN = {"rotation": "it is `orthogonal` but for one direction", "reduced_rank": "it is nearly `affine`"}
"""Families of the ladder that are not stitched, with the reason."""
OF_ONE_MEMBER = ("identity", "orthogonal")
"""From the previous checkpoint of a member to its last."""
DOCUMENTS = 128
"""Eval documents that are run, at most: every site, pair and map is one run of a model over them."""
TOKENS, LEAST = 4096, 2
"""What they may hold together, and how many documents are run in any case."""


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Of every ordered pair, site and map: `loss` and `accuracy` of the stitched model; `delta_loss_source` and
    `delta_loss_target`, its loss less that of either parent; `kl_source` and `kl_target`, the divergence of its
    answers from theirs; `loss_recovered` = (loss of a constant − loss) / (loss of a constant − loss of the target).

    Of the convention `constant_answer` that is the best answer that is always the same, of which a model below 0
    falls short; of `predict_mean` it is the target with its mean of the fit split in place of the site, which has
    rows of its own as a control, and may be far worse than no answer at all. Either is missing where the target is
    no better. `ValueError` for members of different width.
    """
    if evidence.functions is None:
        return
    places = sorted({place for pair in evidence.index for place in pair})
    members = _open(evidence, [evidence.ends[place] for place in places])
    check_widths(members)
    ablated: Ablated = {}
    for site in evidence.sites:  # so that the maps of one are in memory, not of all
        stitched = Stitched(evidence, members, list(_estimates(evidence, members, site)))
        ablated |= stitched.ablated
        yield from stitched.rows(ablated)
    for seed, step in evidence.ends:
        steps = next((history.steps for history in evidence.histories if history.seed == seed), ())
        end = (seed, step)
        uppers = [b for a, b in _directed(evidence) if a == end]
        if 0 in steps and step > 0 and uppers:
            yield from _from(evidence, (seed, 0), uppers, CONTROLLED, "control").rows(ablated)
        earlier = [found for found in steps if 0 < found < step]
        if earlier and evidence.ends.index(end) in evidence.new_members():
            previous = (seed, max(earlier))
            yield from _from(evidence, previous, [end], OF_ONE_MEMBER, "ceiling").rows(ablated)


def _constant(mean: Tensor, x: Tensor) -> Tensor:
    return mean.to(x).expand_as(x)


def _open(evidence: Evidence, ends: Sequence[End]) -> Opened:
    """As many of the first eval documents as there may be."""
    assert evidence.functions is not None
    return Opened(ends, evidence.functions(ends).first(DOCUMENTS, TOKENS, LEAST))


def check_widths(members: Opened) -> None:
    """Refuse members whose residual streams have different numbers of dimensions, or none at a site; names them."""
    functions = replace(members.functions, coordinates=None)
    chunk, sites = next(iter(functions.inputs("eval"))), functions.sites
    widths: list[dict[str, int]] = []
    for place, (seed, _) in enumerate(members.ends):
        try:
            read = functions.read(place, chunk, sites)
        except KeyError as error:
            raise ValueError(f"stitching: seed {seed} has no hook point {error}") from error
        widths.append({site: own.shape[-1] for site, own in read.items()})
        for site in sites:
            if widths[0][site] != widths[-1][site]:
                raise ValueError(
                    f"stitching at {site}: seed {members.ends[0][0]} has {widths[0][site]} dimensions and seed {seed} "
                    f"has {widths[-1][site]}; the upper part of one cannot read the lower part of the other"
                )


def _directed(evidence: Evidence) -> list[tuple[End, End]]:
    """Every pair of the part, both ways."""
    return [way for pair in evidence.pairs for way in (pair.ends, pair.ends[::-1])]


def _estimates(evidence: Evidence, members: Opened, site: str) -> Iterator[Use]:
    """Through every map and its controls; of every member the mean of its site, and nothing done to it."""
    moments = evidence.at(site)
    check_site(site, moments, evidence.pairs)
    forth, back = _Way(moments), _Way(moments.swap())
    means: dict[int, Tensor] = {}
    for pair, label in enumerate(evidence.pairs):
        for way, ends in ((forth, label.ends), (back, label.ends[::-1])):
            lower, upper = (members.ends.index(end) for end in ends)
            means[upper] = way.fit.mean_y[pair]
            yield from way.uses(pair, ends, Use(lower, upper, site))
    for place, mean in means.items():
        yield Use(place, place, site, partial(_constant, mean), None, "control", MEAN)
        yield Use(place, place, site, unchanged, "identity", "ceiling")


@dataclass(frozen=True)
class _Way:
    """The maps of all pairs at a site, one way round: those of the ladder."""

    moments: SiteMoments

    @cached_property
    def fit(self) -> PairMoments:
        return self.moments.fit.total()

    @cached_property
    def maps(self) -> dict[str, Map]:
        fits = {family.name: family.fit for family in ladder() if family.name not in NOT_RUN}
        rigid = {name: fit(self.fit) for name, fit in fits.items() if fit is not None and name != "affine"}
        return rigid | {"affine": affine_cv(filled(self.moments.fit))}

    @cached_property
    def permuted(self) -> dict[str, Map]:
        shuffled = self.moments.fit_documents_permuted.total()
        return {name: FITS[name](shuffled) for name in CONTROLLED}

    def uses(self, pair: int, ends: tuple[End, End], use: Use) -> Iterator[Use]:
        """One directed pair; its random map is the one that the ladder draws."""
        for name, fitted in self.maps.items():
            yield replace(use, edit=fitted[pair], map=name)
        for name, fitted in self.permuted.items():
            yield replace(use, edit=fitted[pair], map=name, role="control", control=PERMUTED)
        generator = chunk_generator(UNPAIRED.index(COVARIANCE), *ends[0], *ends[1])
        drawn = covariance_only(self.fit[pair], generator)
        yield replace(use, edit=drawn, map=drawn.name, role="control", control=COVARIANCE)


def _from(
    evidence: Evidence, lower: End, uppers: Sequence[End], maps: Sequence[str], role: Role
) -> "Stitched":
    """A checkpoint that is not compared elsewhere under the upper parts of members, with maps fitted for it."""
    members = _open(evidence, [lower, *uppers])
    functions, sites = members.functions, evidence.sites
    moments = {site: MomentAccumulator([(0, 1 + k) for k in range(len(uppers))], blocks=1) for site in sites}
    for chunk in functions.inputs("fit"):
        each = [functions.read(place, chunk, sites) for place in range(len(members.ends))]
        for site, own in moments.items():
            own.update(torch.stack([read[site] for read in each]), chunk.document)
    uses = []
    for site, own in moments.items():
        fit = own.total()
        for name in maps:
            fitted, control = FITS[name](fit), UNTRAINED if role == "control" else None
            uses += [Use(0, 1 + k, site, fitted[k], name, role, control) for k in range(len(uppers))]
    return Stitched(evidence, members, uses)
