"""Do the SAEs of two members have the same features? And how much of that is the way they were trained?

Features are matched by their directions, carried through R from the source to the target or left as they are, and
by when they fire. The paper's statistic stands beside what explains it without any common feature: a common
initialisation, data that have only a covariance, and chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from polymorph.alignment.fit import orthogonal
from polymorph.alignment.pairings import chunk_generator, deranged_documents
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row
from polymorph.models.activations import Activations
from polymorph.saes.firing import AT_ONCE, Correlation, fire
from polymorph.saes.matching import assigned, carried, cosines, joint, nearest, random_directions
from polymorph.saes.scores import placed
from polymorph.saes.trained import TrainedSAE, Variant
from polymorph.studies.dictionary_match.arrangements import ARRANGEMENTS, Comparison, Side, comparisons

STUDY = "dictionary_match"
DECODER, JOINT, ACTIVATIONS = "decoder", "joint", "activations"  # conventions: by what features are matched
LIVE = "_live"  # of the cosines, appended: among features that fire on the eval tokens of their member
DRAWS = 40  # of random directions: their least and greatest are about the ends of the 95 % range
TOGETHER = 2**26  # float64 numbers of correlations held together: half a gigabyte


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """`match_mean_max`, `match_share`, `match_hungarian` and `match_hungarian_share` of every arrangement there is.

    The first two are directed: each feature of the source with the most similar of the target. The Hungarian two
    are the same either way and stand in one row a pair. `comparisons` counts, for each arrangement, how many
    comparisons of SAEs there were, 0 where none was trained; `live_features` those of the source's SAE that fire
    on the eval split. Conventions: cosines of the `decoder` directions, `joint` the mean of decoder and encoder
    cosine, and correlation of `activations`, always among live features; with `_live`, cosines among live
    features alone. Without any such row, no feature is live.

    The null `random` is the mean over draws of random directions, with the range that holds 95 % of them. It has
    encoders equal to decoders, the widest case of `joint`, and as many features as there are: with fewer, as in
    the conventions of live features, less is matched by chance.
    """
    for site in evidence.sites:
        R = orthogonal(evidence.at(site).fit.total()).weight
        for family in evidence.dictionaries.families():
            yield from _Family(evidence, site, family, R).rows()


def applies(evidence: Evidence) -> bool:
    """Only where there are two SAEs to compare."""
    families = evidence.dictionaries.families()
    return any(comparisons(evidence, site, family) for site in evidence.sites for family in families)


@dataclass(frozen=True)
class _Family:
    """All comparisons of the SAEs of one family at one site; R [pairs d d] takes the first member to the second."""

    evidence: Evidence
    site: str
    family: str
    R: Tensor

    def rows(self) -> Iterator[Row]:
        counts = dict.fromkeys(ARRANGEMENTS, 0)
        for one in self.comparisons:
            counts[one.arrangement] += 1
        for arrangement, count in counts.items():
            extra = {"sae": self.family, "arrangement": arrangement.name}
            yield self.row("comparisons", count, {"role": arrangement.role, "extra": extra})
        for some in self.groups():
            for one, sums in zip(some, self.correlations(some), strict=True):
                yield from self.compared(one, sums)
        yield from self.random()

    @cached_property
    def comparisons(self) -> list[Comparison]:
        return comparisons(self.evidence, self.site, self.family)

    @cached_property
    def saes(self) -> dict[Side, TrainedSAE]:
        sides = {side for one in self.comparisons for side in (one.source, one.target)}
        return {side: self.read(*side) for side in sorted(sides)}

    def read(self, place: int, variant: Variant) -> TrainedSAE:
        end = self.evidence.ends[place]
        found = self.evidence.dictionaries.read(*end, self.site, self.family, variant)
        if found is None:
            raise ValueError(f"{self.site}: the {variant} SAE {self.family} of seed {end[0]} is not there")
        return replace(found, sae=placed(found.sae, self.R.device))

    def features(self, side: Side) -> int:
        return int(self.saes[side].sae.cfg.d_sae)

    def groups(self) -> Iterator[list[Comparison]]:
        """Comparisons whose correlations are held together, at least one at a time."""
        some: list[Comparison] = []
        held = 0
        for one in self.comparisons:
            numbers = self.features(one.source) * self.features(one.target)
            if some and held + numbers > TOGETHER:
                yield some
                some, held = [], 0
            some.append(one)
            held += numbers
        if some:
            yield some

    def correlations(self, some: Sequence[Comparison]) -> list[Correlation]:
        """Of every feature of the source's SAE on its tokens with every one of the target's: one pass."""
        sizes = {one: (self.features(one.source), self.features(one.target)) for one in some}
        sums = {one: Correlation(*sizes[one], device=self.R.device) for one in some}
        for number, chunk in enumerate(self.evidence.source.chunks("eval")):
            generator = chunk_generator(self.evidence.seed, number)
            every = torch.arange(len(chunk.document))
            shuffled = deranged_documents(chunk.document, chunk.position, generator)
            for permuted, (left, right) in ((False, (every, every)), (True, shuffled)):
                chosen = {one: own for one, own in sums.items() if one.arrangement.permuted == permuted}
                self.update(chosen, chunk, left, right)
        return list(sums.values())

    def update(
        self, sums: Mapping[Comparison, Correlation], chunk: Activations, left: Tensor, right: Tensor
    ) -> None:
        """Add the source's tokens `left` with the target's tokens `right`, a few at a time."""
        values = chunk.values[self.site]
        for at_source, at_target in zip(left.split(AT_ONCE), right.split(AT_ONCE), strict=True):
            source, target = (
                {side: fire(self.saes[side], values[side[0]][tokens.to(values.device)]) for side in sides}
                for tokens, sides in (
                    (at_source, {one.source for one in sums}),
                    (at_target, {one.target for one in sums}),
                )
            )
            for one, own in sums.items():
                own.update(source[one.source], target[one.target])

    def compared(self, one: Comparison, sums: Correlation) -> Iterator[Row]:
        live = sums.live_x, sums.live_y
        if sums.n:
            yield from self.matched(one, sums.result()[live[0]][:, live[1]], ACTIVATIONS, n_tokens=sums.n)
        if one.arrangement.permuted:
            return
        yield from self.live(one, live, sums.n)
        for name, convention, similarity in self.similarities(one):
            yield from self.matched(one, similarity, convention, map=name)
            among = similarity[live[0]][:, live[1]]
            yield from self.matched(one, among, convention + LIVE, map=name, n_tokens=sums.n)

    def similarities(self, one: Comparison) -> Iterator[tuple[str, str, Tensor]]:
        """(map, convention, cosines): as they are, and between members through R."""
        source, target = (_directions(self.saes[side]) for side in (one.source, one.target))
        maps = {"identity": torch.eye(self.R.shape[-1])}
        if one.pair is not None:
            R = self.R[one.pair]
            maps["orthogonal"] = R.mT if one.backward else R
        for name, weight in maps.items():
            moved = [carried(directions, weight) for directions in source]
            yield name, DECODER, cosines(moved[0], target[0])
            yield name, JOINT, cosines(joint(*moved), joint(*target))

    def matched(self, one: Comparison, similarity: Tensor, convention: str, **about: Any) -> Iterator[Row]:
        """The four numbers; none where one side has no feature."""
        if similarity.numel() == 0:
            return
        for backward in one.ways:
            label = {**self.label(one, backward), "convention": convention, **about}
            best = nearest(similarity.mT if backward else similarity)
            yield self.row("match_mean_max", best.mean, label)
            yield self.row("match_share", best.share, label)
        label = {**self.label(one), "convention": convention, **about}
        best = assigned(similarity)
        yield self.row("match_hungarian", best.mean, label)
        yield self.row("match_hungarian_share", best.share, label)

    def live(self, one: Comparison, live: tuple[Tensor, Tensor], n: int) -> Iterator[Row]:
        for backward in one.ways:
            about = {**self.label(one, backward), "convention": ACTIVATIONS, "n_tokens": n}
            yield self.row("live_features", int(live[backward].sum()), about)

    def random(self) -> Iterator[Row]:
        """What random directions match, of as many features: for every pair that has a comparison."""
        pairs = {one.pair: one for one in reversed(self.comparisons) if one.pair is not None}
        for one in pairs.values():
            f, g = self.features(one.source), self.features(one.target)
            for backward, sizes in ((False, (f, g)), (True, (g, f))):
                for metric, drawn in _by_chance(*sizes, self.R.shape[-1], self.evidence.seed).items():
                    if backward and "hungarian" in metric:
                        continue
                    yield from self.null_rows(metric, drawn, self.label(one, backward))

    def null_rows(self, metric: str, drawn: Tensor, label: Mapping[str, Any]) -> Iterator[Row]:
        low, high = (float(drawn.quantile(share)) for share in (0.025, 0.975))
        extra = {"sae": self.family, "arrangement": "random"}
        about = {**label, "role": "null", "low": low, "high": high, "n_documents": None, "extra": extra}
        for convention in (DECODER, JOINT):
            yield self.row(metric, float(drawn.mean()), {**about, "convention": convention})

    def label(self, one: Comparison, backward: bool = False) -> dict[str, Any]:
        source, target = one.members[::-1] if backward else one.members
        columns: dict[str, Any] = {
            "role": one.arrangement.role,
            "n_seeds": len({source, target}),
            "extra": {"sae": self.family, "arrangement": one.arrangement.name},
        }
        for side, place in (("source", source), ("target", target)):
            columns[side], columns[f"{side}_step"] = self.evidence.ends[place]
        return columns

    def row(self, metric: str, value: float, about: Mapping[str, Any]) -> Row:
        """Of the eval split where its tokens say which features are live, else of the split that R is from."""
        split = "eval" if "n_tokens" in about else "fit"
        return self.evidence.row(STUDY, self.site, split, metric, value, **about)


def _directions(trained: TrainedSAE) -> tuple[Tensor, Tensor]:
    """Decoder and encoder directions [features d] of an SAE."""
    return trained.sae.W_dec.detach(), trained.sae.W_enc.detach().mT


@cache
def _by_chance(f: int, g: int, d: int, seed: int) -> dict[str, Tensor]:
    """Metric → its values [draws] between f and g random directions; the same for every pair of these sizes."""
    generator = chunk_generator(seed, f, g, d)
    draws = [random_directions(f, g, d, generator) for _ in range(DRAWS)]
    best, paired = [nearest(draw) for draw in draws], [assigned(draw) for draw in draws]
    values = {
        "match_mean_max": [one.mean for one in best],
        "match_share": [one.share for one in best],
        "match_hungarian": [one.mean for one in paired],
        "match_hungarian_share": [one.share for one in paired],
    }
    return {metric: torch.tensor(value, dtype=torch.float64) for metric, value in values.items()}
