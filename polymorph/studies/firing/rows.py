"""Does an SAE fire on another member's activations as it does on its own?

The SAE of the source reads the target's tokens, as they are and mapped to the source, and each feature is
correlated with itself on the source's own tokens. `source` is thus whose SAE it is, and the maps go from `target`
to `source`. One SAE takes part, the first of `VARIANTS` that the source has, so no seed of an initialisation is
shared, and no feature has to be found again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from polymorph.alignment.collect import collect
from polymorph.alignment.fit import identity, orthogonal, similarity
from polymorph.alignment.maps import Map
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.pairings import chunk_generator, deranged_documents
from polymorph.alignment.regression import affine_cv
from polymorph.alignment.support import filled
from polymorph.evidence.dictionaries import VARIANTS, first_variant
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Row
from polymorph.models.activations import ActivationSource
from polymorph.saes.firing import Correlation, fire
from polymorph.saes.matching import THRESHOLD
from polymorph.saes.scores import placed
from polymorph.saes.trained import TrainedSAE

STUDY = "firing"
PERMUTED = "documents_permuted"
PAPER, LIVE = "paper", "live"  # conventions: of all features, and of those that fire on both sides
OWN, MAPPED, BOTH = "own", "mapped", "both"  # conventions: on whose tokens a feature is live


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """`firing_correlation_mean`, `firing_correlation_share` (above 0.5) and `live_fraction` of directed pairs.

    In the convention `paper` a feature that is constant on either side, a dead one too, counts as 0; `live` is of
    the features that fire on both sides, and has no row where there are none. The control pairs each of the
    target's tokens with that of another document at the same position; its maps are those of the true pairs. The
    ceiling is the member itself at its previous checkpoint (`target_step`), or, where planted, with fresh noise.
    """
    for site in evidence.sites:
        readings = _readings(evidence, site)
        measured = _measure(evidence.source, site, readings, evidence.seed)
        for reading, fired in zip(readings, measured, strict=True):
            yield from _rows(evidence, site, reading, fired)
        yield from _own(evidence, site, readings, measured)
    yield from _ceilings(evidence)


def applies(evidence: Evidence) -> bool:
    """Only where a member that is compared has an SAE."""
    return any(_has_sae(evidence, end) for end in {end for pair in evidence.pairs for end in pair.ends})


@dataclass(frozen=True)
class _Reading:
    """An SAE on the tokens of the member it belongs to and on those of another, by their places in a source."""

    sae: TrainedSAE
    own: int
    other: int
    maps: Mapping[str, Map]
    """From the other member to the own one, by name."""
    about: Mapping[str, Any]
    """The columns of its rows."""


@dataclass(frozen=True)
class _Fired:
    """What came of a reading through one map: on true pairs, and, unless it is a ceiling, with documents permuted."""

    true: Correlation
    permuted: Correlation | None


def _readings(evidence: Evidence, site: str) -> list[_Reading]:
    """Every directed pair whose source has an SAE, in every family; those of one SAE follow one another."""
    fit = evidence.at(site).fit
    forward, backward = _maps(fit), _maps(fit.swap())
    found = []
    for family in evidence.dictionaries.families():
        for place, end in enumerate(evidence.ends):
            if (sae := _read(evidence, end, site, family, fit.xx.device)) is None:
                continue
            for pair, (first, second) in enumerate(evidence.index):
                if place in (first, second):
                    maps, other = (backward, second) if place == first else (forward, first)
                    about = _about(end, evidence.ends[other], sae, role="estimate", n_seeds=2)
                    found.append(_Reading(sae, place, other, _of_pair(maps, pair), about))
    return found


def _read(evidence: Evidence, end: End, site: str, family: str, device: torch.device) -> TrainedSAE | None:
    found = first_variant(evidence.dictionaries, end, site, family, VARIANTS)
    return None if found is None else replace(found, sae=placed(found.sae, device))


def _maps(blocks: PairMoments) -> dict[str, Map]:
    """Maps [pairs] from fit moments [blocks, pairs]."""
    total = blocks.total()
    rigid = {"identity": identity(total), "orthogonal": orthogonal(total), "similarity": similarity(total)}
    return rigid | {"affine": affine_cv(filled(blocks))}


def _of_pair(maps: Mapping[str, Map], pair: int) -> dict[str, Map]:
    return {name: fitted[pair] for name, fitted in maps.items()}


def _about(source: End, target: End, sae: TrainedSAE, **more: Any) -> dict[str, Any]:
    label = {"source": source[0], "target": target[0], "source_step": source[1], "target_step": target[1]}
    return {**label, **more, "extra": {"sae": sae.family, "variant": sae.variant}}


def _measure(
    source: ActivationSource, site: str, readings: Sequence[_Reading], seed: int
) -> list[dict[str, _Fired]]:
    """One pass over the eval split for all readings: by the name of the map, for each of them.

    Held at a time: a few numbers for each feature and map, and the features of one SAE on one chunk, twice.
    """
    measured = [{name: _fired(reading) for name in reading.maps} for reading in readings]
    if not readings:
        return measured
    for number, chunk in enumerate(source.chunks("eval")):
        values = chunk.values[site]
        shuffle = deranged_documents(chunk.document, chunk.position, chunk_generator(seed, number))
        both = zip(readings, measured, strict=True)
        for (_, place), of_one_sae in groupby(both, key=lambda each: (each[0].sae.family, each[0].own)):
            each_reading = list(of_one_sae)
            own = fire(each_reading[0][0].sae, values[place])
            for reading, fired in each_reading:
                _update(reading, fired, own, values[reading.other], shuffle)
    return measured


def _fired(reading: _Reading) -> _Fired:
    features, device = reading.sae.sae.cfg.d_sae, reading.sae.sae.W_dec.device
    controlled = reading.about["role"] == "estimate"
    permuted = Correlation(features, device=device) if controlled else None
    return _Fired(Correlation(features, device=device), permuted)


def _update(
    reading: _Reading, fired: Mapping[str, _Fired], own: Tensor, other: Tensor, shuffle: tuple[Tensor, Tensor]
) -> None:
    at, for_target = (tokens.to(own.device) for tokens in shuffle)
    for name, fitted in reading.maps.items():
        mapped = fire(reading.sae, fitted(other))
        fired[name].true.update(own, mapped)
        if (permuted := fired[name].permuted) is not None:
            permuted.update(own[at], mapped[for_target])


def _rows(evidence: Evidence, site: str, reading: _Reading, measured: Mapping[str, _Fired]) -> Iterator[Row]:
    for name, fired in measured.items():
        about = {**reading.about, "map": name}
        yield from _correlations(evidence, site, fired.true, about)
        for convention, live in ((MAPPED, fired.true.live_y), (BOTH, fired.true.live)):
            counted = {**about, "convention": convention, "n_tokens": fired.true.n}
            yield evidence.row(STUDY, site, "eval", "live_fraction", _share(live), **counted)
        if fired.permuted is not None and fired.permuted.n:
            extra = {**about["extra"], "control": PERMUTED}
            control = {**about, "role": "control", "extra": extra}
            yield from _correlations(evidence, site, fired.permuted, control)


def _correlations(
    evidence: Evidence, site: str, sums: Correlation, about: Mapping[str, Any]
) -> Iterator[Row]:
    every = sums.result()
    for convention, chosen in ((PAPER, every), (LIVE, every[sums.live])):
        if len(chosen):
            own = {**about, "convention": convention, "n_tokens": sums.n}
            measured = {"mean": float(chosen.mean()), "share": _share(chosen > THRESHOLD)}
            for statistic, value in measured.items():
                yield evidence.row(STUDY, site, "eval", f"firing_correlation_{statistic}", value, **own)


def _own(
    evidence: Evidence, site: str, readings: Sequence[_Reading], measured: Sequence[Mapping[str, _Fired]]
) -> Iterator[Row]:
    """The share of features that are live on the tokens of their own member: once for each SAE."""
    once = {
        (reading.sae.family, reading.own): (reading.sae, fired)
        for reading, fired in zip(readings, measured, strict=True)
    }
    for (_, place), (sae, fired) in once.items():
        sums = next(iter(fired.values())).true
        end = evidence.ends[place]
        about = _about(end, end, sae, role="ceiling", n_seeds=1, convention=OWN, n_tokens=sums.n)
        yield evidence.row(STUDY, site, "eval", "live_fraction", _share(sums.live_x), **about)


def _share(which: Tensor) -> float:
    return float(which.double().mean())


@dataclass(frozen=True)
class _Twice:
    """One member read twice: where its SAE belongs, and the other reading, named by another step."""

    end: End
    other_step: int
    own: int
    other: int


def _second_readings(evidence: Evidence) -> Iterator[tuple[ActivationSource, list[_Twice]]]:
    """Sources that read members twice: planted ones with fresh noise, others at their previous checkpoint."""
    if evidence.again is not None:
        members = len(evidence.ends)
        yield (
            evidence.again,
            [_Twice(end, end[1] + 1, place, members + place) for place, end in enumerate(evidence.ends)],
        )
    for history in evidence.histories:
        for seed, step in evidence.ends:
            earlier = [s for s in history.steps if 0 < s < step]
            if seed == history.seed and earlier and _has_sae(evidence, (seed, step)):
                source = history.source([earlier[-1], step])
                source = replace(source, sites=evidence.sites)  # type: ignore[type-var]  # a dataclass
                yield source, [_Twice((seed, step), earlier[-1], 1, 0)]


def _has_sae(evidence: Evidence, end: End) -> bool:
    there = evidence.dictionaries
    return any(
        end[1] in there.steps(end[0], site, family, variant)
        for family in there.families()
        for site in evidence.sites
        for variant in VARIANTS
    )


def _ceilings(evidence: Evidence) -> Iterator[Row]:
    for source, twice in _second_readings(evidence):
        places = [(one.own, one.other) for one in twice]
        collected = collect(source, places, evidence.blocks, evidence.seed, controls=False)
        for site in evidence.sites:
            fit = collected.at(site).fit
            maps = _maps(fit.swap())
            readings = [
                _Reading(sae, one.own, one.other, _of_pair(maps, pair), _twice_about(source, one, sae))
                for family in evidence.dictionaries.families()
                for pair, one in enumerate(twice)
                if (sae := _read(evidence, one.end, site, family, fit.xx.device)) is not None
            ]
            measured = _measure(source, site, readings, evidence.seed)
            for reading, fired in zip(readings, measured, strict=True):
                yield from _rows(evidence, site, reading, fired)


def _twice_about(source: ActivationSource, one: _Twice, sae: TrainedSAE) -> dict[str, Any]:
    target = one.end[0], one.other_step
    documents = source.documents["eval"]
    return _about(one.end, target, sae, role="ceiling", n_seeds=1, n_documents=documents)
