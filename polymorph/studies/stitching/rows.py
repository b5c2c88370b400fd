"""Can the upper part of one member read the lower part of another through a map? Loss of the stitched model.

The lower part of the source runs up to a site, a map carries its residual stream, the upper part of the target goes
on from there (Lenc and Vedaldi 2015; Bansal et al. 2021). It is what R² means for the function: variance that no
later part reads costs nothing here, however much of R² it holds. Maps are those of the ladder, fitted on the fit
split; what is stitched is run on the first eval documents.

Where a site holds little more than the tokens themselves, the freest map carries over what no member computed. So
beside maps that have not seen the pairing stands an untrained lower part, with maps fitted to it: what it reaches is
no sign of a shared computation. Intervals are over documents and hold the maps fixed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.collect import SiteMoments
from polymorph.alignment.controls import covariance_only
from polymorph.alignment.fit import FITS
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import MomentAccumulator, PairMoments
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.regression import affine_cv
from polymorph.alignment.support import filled
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.function_scores import (
    Answer,
    ClassMeans,
    TokenMeans,
    answers,
    bounded_each,
    counted,
    entropy,
    labels_of,
    parts,
    summed,
    with_sum,
)
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Role, Row
from polymorph.models.activations import Edit
from polymorph.models.functions import Functions
from polymorph.saes.scores import LEAST_LOSS, clear_ratio
from polymorph.studies.equivalence.rows import UNTRAINED
from polymorph.studies.ladder.rows import CONTROLLED, UNPAIRED, check_site
from polymorph.tasks.task import Chunk

STUDY = "stitching"
MAPS = ("identity", "shift", "signed_permutation", "orthogonal", "similarity", "affine")
"""`rotation` is `orthogonal` but for one direction, and `reduced_rank` nearly `affine`: neither is run."""
OF_ONE_MEMBER = ("identity", "orthogonal")
"""From the previous checkpoint of a member to its last."""
DOCUMENTS = 128
"""Eval documents that are run, at most: every site, pair and map is one run of a model over them."""
TOKENS, LEAST = 4096, 2
"""What they may hold together, and how many documents are run in any case."""
PERMUTED, COVARIANCE, MEAN = "documents_permuted", "covariance_only", "predict_mean"
CONSTANT = "constant_answer"
"""Of `loss_recovered`, the convention whose 0 is the entropy of the labels."""
PARTS_HELD = 16
"""Parts of members' answers in memory, a gigabyte: more than both parents have, but where the vocabulary is large."""
Scores = Float[Tensor, "scores"]
Ablated = dict[tuple[End, str, str], Scores]
"""The loss of members with the mean in place of a site, by member, site and head."""


def applies(evidence: Evidence) -> bool:
    """Only where members are models."""
    return evidence.functions is not None


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
        stitched = _Stitched(evidence, members, list(_estimates(evidence, members, site)))
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


def _same(x: Tensor) -> Tensor:
    return x


def _constant(mean: Tensor, x: Tensor) -> Tensor:
    return mean.to(x).expand_as(x)


@dataclass(frozen=True)
class _Opened:
    """Members at checkpoints, on the eval documents that are run."""

    ends: Sequence[End]
    functions: Functions


@dataclass(frozen=True)
class _Use:
    """One stitched model: two places in `ends`, a site, and what is done between them."""

    lower: int
    upper: int
    site: str
    edit: Edit = _same
    map: str | None = None
    role: Role = "estimate"
    control: str | None = None


def _open(evidence: Evidence, ends: Sequence[End]) -> _Opened:
    """As many of the first eval documents as there may be."""
    assert evidence.functions is not None
    return _Opened(ends, evidence.functions(ends).first(DOCUMENTS, TOKENS, LEAST))


def check_widths(members: _Opened) -> None:
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


def _estimates(evidence: Evidence, members: _Opened, site: str) -> Iterator[_Use]:
    """Through every map and its controls; of every member the mean of its site, and nothing done to it."""
    moments = evidence.at(site)
    check_site(site, moments, evidence.pairs)
    forth, back = _Way(moments), _Way(moments.swap())
    means: dict[int, Tensor] = {}
    for pair, label in enumerate(evidence.pairs):
        for way, ends in ((forth, label.ends), (back, label.ends[::-1])):
            lower, upper = (members.ends.index(end) for end in ends)
            means[upper] = way.fit.mean_y[pair]
            yield from way.uses(pair, ends, _Use(lower, upper, site))
    for place, mean in means.items():
        yield _Use(place, place, site, partial(_constant, mean), None, "control", MEAN)
        yield _Use(place, place, site, _same, "identity", "ceiling")


@dataclass(frozen=True)
class _Way:
    """The maps of all pairs at a site, one way round: those of the ladder."""

    moments: SiteMoments

    @cached_property
    def fit(self) -> PairMoments:
        return self.moments.fit.total()

    @cached_property
    def maps(self) -> dict[str, Map]:
        rigid = {name: FITS[name](self.fit) for name in MAPS if name != "affine"}
        return rigid | {"affine": affine_cv(filled(self.moments.fit))}

    @cached_property
    def permuted(self) -> dict[str, Map]:
        shuffled = self.moments.fit_documents_permuted.total()
        return {name: FITS[name](shuffled) for name in CONTROLLED}

    def uses(self, pair: int, ends: tuple[End, End], use: _Use) -> Iterator[_Use]:
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
) -> "_Stitched":
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
            uses += [_Use(0, 1 + k, site, fitted[k], name, role, control) for k in range(len(uppers))]
    return _Stitched(evidence, members, uses)


@dataclass(frozen=True)
class _Stitched:
    """Stitched models, all run in one pass over the documents; but for the maps, in memory that does not depend on
    how many they are."""

    evidence: Evidence
    members: _Opened
    uses: Sequence[_Use]

    @property
    def means(self) -> TokenMeans:
        """Of members by (place, head, metric), and of stitched models by (their number as text, head, metric)."""
        return self._run[0]

    @cached_property
    def _run(self) -> tuple[TokenMeans, ClassMeans]:
        """The means, and the labels."""
        means, labels = TokenMeans(self.evidence.blocks), ClassMeans(self.evidence.blocks)
        functions, sites = self.members.functions, sorted({use.site for use in self.uses})
        order = sorted(range(len(self.uses)), key=lambda i: (self.uses[i].lower, self.uses[i].upper))
        for chunk in functions.inputs("eval"):
            at = _At(functions, chunk, sites, means)
            at.labels(labels)
            for place in range(len(self.members.ends)):
                at.member(place)
            for i in order:
                at.stitched(f"{i}", self.uses[i])
        return means, labels

    @cached_property
    def ablated(self) -> Ablated:
        """Of the members whose mean is among the uses."""
        return {
            (self.members.ends[use.upper], use.site, head): self.means.scores((f"{i}", head, "loss"))
            for i, use in enumerate(self.uses)
            if use.control == MEAN
            for head in self.means.heads
        }

    @cached_property
    def constant(self) -> dict[str, Scores]:
        """The loss of the best constant answer, by head: the entropy of the labels."""
        each = {head: entropy(self._run[1].scores(((), head, "label"))) for head in self._run[1].heads}
        return summed(each)

    def rows(self, ablated: Ablated) -> Iterator[Row]:
        """Of every stitched model; a member by itself only where it is new."""
        new = [self.evidence.ends[place] for place in self.evidence.new_members()]
        for i, use in enumerate(self.uses):
            alone = use.lower == use.upper
            if not alone or self.members.ends[use.upper] in new:
                for head in self.means.heads:
                    yield from self._rows(f"{i}", use, head, ablated)

    def _rows(self, number: str, use: _Use, head: str, ablated: Ablated) -> Iterator[Row]:
        found = self._scores(number, use, head, ablated)
        (source, source_step), (upper, target_step) = (self.members.ends[p] for p in (use.lower, use.upper))
        about: dict[str, Any] = {"target": upper, "target_step": target_step, "n_seeds": len({source, upper})}
        if use.control != MEAN:
            about |= {"source": source, "source_step": source_step}
        extra = {"head": head} | ({} if use.control is None else {"control": use.control})
        about |= {"role": use.role, "map": use.map, "extra": extra}
        about |= {"n_tokens": self.means.tokens((number, head, "loss"))}
        about |= {"n_documents": self.members.functions.probe.eval}
        for (metric, convention), bounds in zip(found, bounded_each([*found.values()]), strict=True):
            value, low, high = bounds
            own = {"low": low, "high": high, "convention": convention, **about}
            yield self.evidence.row(STUDY, use.site, "eval", metric, value, **own)

    def _scores(
        self, number: str, use: _Use, head: str, ablated: Ablated
    ) -> dict[tuple[str, str | None], Scores]:
        """By metric and convention; of the target without anything of a source, nothing is said of one."""
        of = self.means.scores
        loss, target = of((number, head, "loss")), of((use.upper, head, "loss"))
        found: dict[tuple[str, str | None], Scores] = {("loss", None): loss}
        found |= {(metric, None): of((number, head, metric)) for metric in ("accuracy", "kl_target")}
        found["delta_loss_target", None] = loss - target
        constants = {CONSTANT: self.constant[head]}
        if use.control != MEAN:
            found["delta_loss_source", None] = loss - of((use.lower, head, "loss"))
            found["kl_source", None] = of((number, head, "kl_source"))
            constants[MEAN] = ablated[self.members.ends[use.upper], use.site, head]
        for convention, most in constants.items():
            recovered = clear_ratio(most - loss, most - target, LEAST_LOSS)
            if recovered is not None:
                found["loss_recovered", convention] = recovered
        return found


class _At:
    """One chunk: the answers of members there, and of whatever is stitched from them."""

    def __init__(self, functions: Functions, chunk: Chunk, sites: Sequence[str], means: TokenMeans) -> None:
        self._functions, self._chunk, self._means = functions, chunk, means
        self._labels = labels_of(chunk)
        self._counted = counted(self._labels)
        # stitched models come in the order of their parents: two at a time are enough
        self._read = lru_cache(1)(lambda place: functions.read(place, chunk, sites))
        self._logits = lru_cache(2)(lambda place: functions.logits(place, chunk))
        self._answers = lru_cache(PARTS_HELD)(self._answered)

    def labels(self, found: ClassMeans) -> None:
        """Count the labels."""
        for head, own in self._labels.items():
            kept, classes = self._counted[head], self._logits(0)[head].shape[-1]
            found.count(((), head, "label"), own[kept], classes, self._chunk.document[kept])

    def member(self, place: int) -> None:
        """Add a member as it is."""
        for part in parts(self._logits(place)):
            said = self._answers(place, part.start, part.stop)
            labels = {head: own[part] for head, own in self._labels.items()}
            self._add(place, part, {head: answer.fit(labels[head]) for head, answer in said.items()})

    def stitched(self, number: str, use: _Use) -> None:
        """Add a stitched model."""
        carried = use.edit(self._read(use.lower)[use.site])
        logits = self._functions.logits(use.upper, self._chunk, use.site, lambda _: carried)
        for part in parts(logits):
            lower, upper = (self._answers(p, part.start, part.stop) for p in (use.lower, use.upper))
            values = {
                head: {
                    **answer.fit(self._labels[head][part]),
                    "kl_source": lower[head].kl(answer),
                    "kl_target": upper[head].kl(answer),
                }
                for head, answer in answers(logits, part).items()
            }
            self._add(number, part, values)

    def _answered(self, place: int, start: int, stop: int) -> Mapping[str, Answer]:
        return answers(self._logits(place), slice(start, stop))

    def _add(self, of: int | str, part: slice, by_head: Mapping[str, Mapping[str, Tensor]]) -> None:
        document = self._chunk.document[part]
        for head, values in with_sum(by_head).items():
            for metric, each in values.items():
                self._means.add((of, head, metric), each, document, self._counted[head][part])
