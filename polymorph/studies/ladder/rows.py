"""How far does each family of maps take one member's site to another's? R² for every rung, pair and site.

Maps are fitted on the fit split and scored on the eval split. Beside them stand what a freer family gains, the
controls (fits that know nothing of the true pairing, scored on true pairs) and the ceilings (one seed at two
checkpoints).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from polymorph.alignment import rotation
from polymorph.alignment.collect import SiteMoments, collect
from polymorph.alignment.controls import covariance_only, gaussian_cross
from polymorph.alignment.families import FITS, fit_ladder
from polymorph.alignment.fit import orthogonal
from polymorph.alignment.gaps import Scored, Scores
from polymorph.alignment.haar import haar
from polymorph.alignment.maps import Map, stacked
from polymorph.alignment.moments import PairMoments, participation_ratio
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.support import Support, filled, support, trace_on_support
from polymorph.errors import RunError
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row

SHUFFLED = ("tokens_permuted", "documents_permuted")
UNPAIRED = ("covariance_only", "matched_gaussian", "haar_draw")
CONTROLLED = ("orthogonal", "affine")  # one rigid rung and the freest one: their floors bracket the others'
CONVENTION = "per_dimension"  # R² with the mean of each dimension, as `explained_variance`


def ladder_rows(
    moments: Mapping[str, SiteMoments],
    pairs: Sequence[PairLabel],
    cohort: str,
    *,
    fit_documents: int,
    eval_documents: int,
) -> list[Row]:
    """The rows of all sites, pairs and directions; the study's `columns` make them a table.

    Intervals come from a delete-one-block jackknife over eval blocks with the maps held fixed: they hold the
    uncertainty of the score of this map, not of the fit. With one block they are null. What is said of the
    whole orthogonal matrix (`frobenius_from_identity`, `determinant`, `trace`) has the convention
    `undetermined` where `determined_dimension` is below d; `trace_on_support` and `angle_on_support` speak of
    its determined directions.
    """
    documents = {"fit": fit_documents, "eval": eval_documents}
    rows: list[Row] = []
    for site, at in moments.items():
        check_site(site, at, pairs)
        backward = [None if label.role == "ceiling" else label.reverse() for label in pairs]
        for direction, labels in ((at, list(pairs)), (at.swap(), backward)):
            if all(label is None for label in labels):
                continue
            try:
                rows += _Direction(cohort, site, direction, labels, documents).rows()
            except ValueError as error:
                raise RunError(f"ladder at {site}: {error}") from error
    return rows


@dataclass(frozen=True)
class _Direction:
    """All pairs of a site, one way round; a label that is None is left out of the rows."""

    cohort: str
    site: str
    moments: SiteMoments
    labels: Sequence[PairLabel | None]
    documents: Mapping[str, int]

    def rows(self) -> Iterator[Row]:
        for fitted in self.maps.values():
            yield from self.scored(self.scores.r2(fitted), map=fitted.name)
        for metric, gap in self.scores.gaps(self.maps).items():
            yield from self.emit(metric, gap, "eval", convention=CONVENTION)
        yield from self.controls()
        yield from self.geometry()
        for side, sums in (("source", self.scores.whole.xx), ("target", self.scores.whole.yy)):
            yield from self.emit(f"participation_ratio_{side}", (participation_ratio(sums), None), "eval")

    @cached_property
    def maps(self) -> dict[str, Map]:
        return fit_ladder(filled(self.moments.fit))

    @cached_property
    def fit(self) -> PairMoments:
        return self.moments.fit.total()

    @cached_property
    def scores(self) -> Scores:
        return Scores(self.moments.eval)

    @cached_property
    def support(self) -> Support | None:
        """None where there is a single block, and with it no standard error."""
        return None if self.scores.parts is None else support(self.moments.fit, self.moments.eval)

    def scored(self, scored: Scored, control: str | None = None, **about: Any) -> Iterator[Row]:
        yield from self.emit("r2", scored, "eval", control, convention=CONVENTION, **about)

    def controls(self) -> Iterator[Row]:
        """Not for ceilings, which have a pairing of their own."""
        if all(label is None or label.role == "ceiling" for label in self.labels):
            return
        for control in SHUFFLED:
            shuffled = getattr(self.moments, f"fit_{control}").total()
            floors = {name: FITS[name](shuffled) for name in CONTROLLED}
            for floor in floors.values():
                yield from self.scored(self.scores.r2(floor), control, map=floor.name)
            share = self.scores.share(self.maps["orthogonal"], floors["orthogonal"])
            if control == "tokens_permuted":
                yield from self.emit("ladder_share", share, "eval", map="orthogonal", estimates_only=True)
        for control in UNPAIRED:
            unpaired = stacked([self.unpaired(control, i) for i in range(len(self.labels))])
            yield from self.scored(self.scores.r2(unpaired), control, map="orthogonal")

    def unpaired(self, control: str, pair: int) -> Map:
        """A map of one pair that has not seen its pairing, drawn from the pair's own label.

        Not from its place: the same rows follow whatever other pairs are computed with it.
        """
        label, moments = self.labels[pair], self.fit[pair]
        key = (0, 0, 0, 0) if label is None else (*label.ends[0], *label.ends[1])
        generator = chunk_generator(UNPAIRED.index(control), *key)
        if control == "covariance_only":
            return covariance_only(moments, generator)
        if control == "matched_gaussian":
            return orthogonal(gaussian_cross(moments, generator))
        R = haar(moments.xx.shape[-1], 1, generator)[0]
        return Map("orthogonal", R.to(moments.xx.device), moments.mean_x, moments.mean_y)

    def geometry(self) -> Iterator[Row]:
        """What the fitted orthogonal matrix is like, and how much of it the data determine."""
        R = self.maps["orthogonal"].weight
        d = R.shape[-1]
        whole = {
            "frobenius_from_identity": rotation.frobenius_from_identity(R),
            "determinant": rotation.determinant_sign(R),
            "trace": rotation.trace(R),
        }
        r = None if self.support is None else self.support.determined
        for metric, values in whole.items():
            yield from self.emit(metric, (values, None), "fit", map="orthogonal", determined=r)
        scale = torch.full(R.shape[:1], rotation.frobenius_haar_scale(d))
        yield from self.emit("frobenius_haar_scale", (scale, None), "fit", map="orthogonal")
        if self.support is not None and r is not None:
            yield from self.emit("determined_dimension", (r, None), "fit", map="orthogonal")
            traces = [self._on_support(i, int(own)) for i, own in enumerate(r)]
            mean_turn = torch.arccos((torch.tensor(traces) / r.cpu().clamp(min=1)).clamp(-1, 1))
            for metric, values in (
                ("trace_on_support", torch.tensor(traces)),
                ("angle_on_support", mean_turn),
            ):
                yield from self.emit(metric, (values, None), "fit", map="orthogonal", only=r > 0)

    def _on_support(self, pair: int, r: int) -> float:
        assert self.support is not None
        return float(trace_on_support(self.support[pair], r)) if r else 0.0

    def emit(
        self,
        metric: str,
        scored: tuple[Tensor, tuple[Tensor, Tensor] | None],
        split: str,
        control: str | None = None,
        *,
        determined: Tensor | None = None,
        only: Tensor | None = None,
        estimates_only: bool = False,
        **about: Any,
    ) -> Iterator[Row]:
        """One row per label from values [pairs]; a control is not repeated for ceilings."""
        values, bounds = scored
        low, high = (bound.tolist() for bound in bounds) if bounds else ([None] * len(values),) * 2
        tokens = (self.fit if split == "fit" else self.scores.whole).n.long().tolist()
        d = self.fit.xx.shape[-1]
        for i, label in enumerate(self.labels):
            if label is None or ((control or estimates_only) and label.role == "ceiling"):
                continue
            if only is not None and not bool(only[i]):
                continue
            if determined is not None:
                about["convention"] = "determined" if int(determined[i]) == d else "undetermined"
            yield Row(
                cohort=self.cohort,
                study="ladder",
                **label.columns("control" if control else None),
                site=self.site,
                metric=metric,
                split=split,
                value=float(values[i]),
                low=low[i],
                high=high[i],
                n_documents=self.documents[split],
                n_tokens=tokens[i],
                extra={"control": control} if control else {},
                **about,
            )


def check_site(site: str, moments: SiteMoments, pairs: Sequence[PairLabel]) -> None:
    """Refuse a site whose moments do not belong to `pairs`, or where a member does not vary at all.

    A single dimension that is constant is no reason to refuse the others: the data then do not determine all
    of R, and `determined_dimension` says so.
    """
    if moments.fit.n.shape[1] != len(pairs) or moments.eval.n.shape[1] != len(pairs):
        raise ValueError(f"{site}: {len(pairs)} labels for moments of {moments.fit.n.shape[1]} pairs")
    for split in ("fit", "eval"):
        whole = getattr(moments, split).total()
        for seeds, spread in (("source", whole.spread_x), ("target", whole.spread_y)):
            constant = (spread.sum(-1) == 0).nonzero().flatten().tolist()
            if constant:
                member = f"seed {getattr(pairs[constant[0]], seeds)}, {split} split"
                raise RunError(f"{site}: every dimension of {member} is constant: no map is reported")


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """The ladder of the pairs of one comparison; a second reading of a member, if there is one, as its next step."""
    documents = {f"{split}_documents": count for split, count in evidence.source.documents.items()}
    for site in evidence.sites:
        yield from ladder_rows({site: evidence.at(site)}, evidence.pairs, evidence.cohort, **documents)
    if evidence.again is not None and evidence.pairs[0] == evidence.root.pairs[0]:
        members = len(evidence.ends)
        labels = [PairLabel.between(seed, seed, step, step + 1) for seed, step in evidence.ends]
        index = [(member, members + member) for member in range(members)]
        readings = collect(evidence.again, index, evidence.blocks, evidence.seed, controls=False)
        yield from ladder_rows(readings.result(), labels, evidence.cohort, **documents)
