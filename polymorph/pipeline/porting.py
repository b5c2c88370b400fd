"""`analyze.py port=…`: an SAE of one member made to work on another, written as a SAELens folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch
from sae_lens import SAE

from polymorph.alignment.families import fit_ladder, rungs
from polymorph.alignment.support import filled
from polymorph.checks import nearest
from polymorph.errors import RequestError
from polymorph.evidence.evidence import BLOCKS
from polymorph.evidence.pairs import End, PairLabel
from polymorph.pipeline.comparison import Comparison
from polymorph.saes.coordinates import lifting, reading
from polymorph.saes.port import port_sae
from polymorph.saes.scores import Route, SAEScores, placed
from polymorph.saes.stored import StoredDictionaries, sae_files, sae_name
from polymorph.saes.trained import TrainedSAE, Variant


@dataclass(frozen=True)
class PortRequest:
    """Which SAE goes from which member to which."""

    source: int
    target: int
    site: str
    sae: str
    """The family."""
    map: str = "orthogonal"
    variant: str = "distinct"

    @classmethod
    def of(cls, given: Any) -> "PortRequest":
        """From `port={source: 0, target: 1, site: …, sae: …}`; `RequestError` says what is wrong with it."""
        example = "port={source:0,target:1,site:blocks.0.hook_resid_post,sae:standard_x8,map:orthogonal}"
        if not isinstance(given, Mapping):
            raise RequestError(f"port={given!r}: give it as {example}")
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                raise RequestError(f"port.{key}: there is no such key{nearest(str(key), known)}; {example}")
        if missing := [key for key in known[:4] if key not in given]:
            raise RequestError(f"port: {', '.join(missing)} is missing; {example}")
        for key, kind in (("source", int), ("target", int), ("site", str), ("sae", str)):
            if type(given[key]) is not kind:
                raise RequestError(
                    f"port.{key}={given[key]!r}: a {'seed' if kind is int else 'name'}; {example}"
                )
        request = cls(**given)
        for key, choices in (("map", rungs()), ("variant", get_args(Variant))):
            value = getattr(request, key)
            if value not in choices:
                raise RequestError(
                    f"port.{key}={value!r}{nearest(str(value), choices)}: one of {', '.join(choices)}"
                )
        if request.source == request.target:
            raise RequestError(f"port: source and target are both {request.source}")
        return request


@dataclass(frozen=True)
class Ported:
    """The folder of the ported SAE, and explained variance (centred, eval split) before and after."""

    folder: Path
    own: float
    naive: float
    mapped: float


def port(comparison: Comparison, request: PortRequest) -> Ported:
    """Fit the map on the fit split of the probe, fold it into the SAE, and publish that with its provenance."""
    source, target = (_end(comparison, seed) for seed in (request.source, request.target))
    if request.site not in comparison.sites:
        known = comparison.sites
        raise RequestError(
            f"port.site={request.site}{nearest(request.site, known)}: one of {', '.join(known)}"
        )
    trained = _read(comparison, request, source)
    label = PairLabel.between(request.source, request.target, source[1], target[1])
    moments = comparison.moments([label]).at(request.site).fit
    there, back = (fit_ladder(filled(way))[request.map][0] for way in (moments.swap(), moments))
    route = Route.of(there, back)
    about = {
        "source": {"seed": source[0], "step": source[1], "checkpoint": _digest(comparison, source)},
        "target": {"seed": target[0], "step": target[1], "checkpoint": _digest(comparison, target)},
        "site": request.site,
        "sae": {"family": trained.family, "variant": trained.variant, "digest": trained.digest},
        "map": request.map,
        "fit": {"documents": comparison.probe.fit, "tokens": int(moments.n.sum())},
    }
    try:
        ported = port_sae(trained.sae, route.there, route.back)
    except ValueError as error:
        raise RequestError(f"port: {error}") from error
    ev = _scores(comparison, [source, target], request.site, trained.sae, ported)
    measured = dict(zip(("own", "naive", "mapped"), ev, strict=True))
    d_model = comparison.model.d_model
    if comparison.d < d_model:  # outside, SAEs read the stream itself
        there, back = route.there.to("cpu"), route.back.to("cpu")
        route = Route(there @ reading(d_model), lifting(d_model) @ back)
    final = port_sae(
        trained.sae, route.there, route.back, provenance={**about, "explained_variance": measured}
    )
    name = f"{sae_name(trained.family, trained.variant)}-{request.map}"
    folder = comparison.cohort.publish_ported(
        source[0], target[0], request.site, name, sae_files(final), {**about, "explained_variance": measured}
    )
    return Ported(folder, *ev)


def _end(comparison: Comparison, seed: int) -> End:
    ends = dict(comparison.last_ends([member.seed for member in comparison.cohort.members()]))
    if seed not in ends:
        there = ", ".join(map(str, ends)) or "none"
        raise RequestError(
            f"port: {comparison.cohort.name} has no seed {seed!r} with a checkpoint; there are {there}"
        )
    return seed, ends[seed]


def _read(comparison: Comparison, request: PortRequest, end: End) -> TrainedSAE:
    there = StoredDictionaries(comparison.cohort)
    variant: Any = request.variant
    trained = there.read(*end, request.site, request.sae, variant)
    if trained is None:
        known = ", ".join(there.families()) or "none"
        raise RequestError(
            f"port.sae={request.sae}: seed {end[0]} has no such SAE at step {end[1]}, {request.site} "
            f"(families: {known}); train it with: python train.py stage=sae sae={request.sae}"
        )
    return trained


def _digest(comparison: Comparison, end: End) -> str:
    return comparison.cohort.member(end[0]).read_step(end[1]).digest


def _scores(
    comparison: Comparison, ends: Sequence[End], site: str, sae: SAE[Any], ported: SAE[Any]
) -> tuple[float, float, float]:
    """Explained variance of the SAE on its own member, on the other one, and of the ported one there."""
    uses = [(sae, 0), (sae, 1), (ported, 1)]
    scores = [SAEScores(BLOCKS) for _ in uses]
    with torch.no_grad():
        for chunk in comparison.source(ends).chunks("eval"):
            for each, (used, member) in zip(scores, uses, strict=True):
                each.update(placed(used, comparison.device), chunk.values[site][member], chunk.document)
    own, naive, mapped = (each.metrics()["explained_variance", "centred"][0].item() for each in scores)
    return own, naive, mapped
