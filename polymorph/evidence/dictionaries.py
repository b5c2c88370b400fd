"""What the studies of SAEs have in common: which SAE of a member is meant, how it is used, and its rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from polymorph.alignment.controls import covariance_only
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.pairings import chunk_generator
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Role, Row
from polymorph.models.activations import ActivationSource, ModelActivations
from polymorph.saes.scores import Metric, Route, bounded, placed
from polymorph.saes.trained import Dictionaries, TrainedSAE, Variant

VARIANTS: tuple[Variant, ...] = ("distinct", "online", "attached")
"""The first of them that a member has is used: never one that shares its initialisation with another member's."""
DRAWS = 3
"""Random signs of `covariance_only`: its scores are the mean over these maps."""


@dataclass(frozen=True)
class Use:
    """The SAE of one member on a member, both as places in `ends`: its own, or through a map.

    Without a map there is one route, None; with draws of a random map there are several.
    """

    source: int
    target: int
    routes: tuple[Route | None, ...] = (None,)
    map: str | None = None
    control: str | None = None

    @property
    def role(self) -> Role:
        if self.control is not None:
            return "control"
        return "ceiling" if self.source == self.target else "estimate"


def by_covariance(use: Use, moments: PairMoments, ends: Sequence[End]) -> Use:
    """The control `covariance_only` of a use: its draws follow from the ends, whose SAE it is and on whom.

    `moments` are total ones from the member on which the SAE is used to its own.
    """
    generators = [chunk_generator(draw, *ends[0], *ends[1]) for draw in range(DRAWS)]
    drawn = [covariance_only(moments, generator) for generator in generators]
    routes = tuple(Route(there=one, back=one.inv) for one in drawn)
    return replace(use, map="orthogonal", routes=routes, control="covariance_only")


def first_variant(
    dictionaries: Dictionaries, end: End, site: str, family: str, variants: Sequence[Variant]
) -> TrainedSAE | None:
    """The SAE of a member at its step: the first of the variants that there is."""
    each = (dictionaries.read(*end, site, family, variant) for variant in variants)
    return next((trained for trained in each if trained is not None), None)


def check_width(trained: TrainedSAE, end: End, site: str, d: int) -> None:
    """Refuse an SAE that was not made for activations of d dimensions."""
    if (width := trained.sae.cfg.d_in) != d:
        raise ValueError(
            f"the SAE {trained.family} of seed {end[0]} at step {end[1]}, {site}, takes {width} dimensions, and "
            f"the activations there have {d}"
        )


def saes_at(
    evidence: Evidence, site: str, fit: PairMoments, variants: Sequence[Variant]
) -> dict[tuple[int, str], TrainedSAE]:
    """The SAEs of the members at a site, by place and family, where the activations are."""
    found = {}
    for family in evidence.dictionaries.families():
        for place in sorted({place for pair in evidence.index for place in pair}):
            trained = first_variant(evidence.dictionaries, evidence.ends[place], site, family, variants)
            if trained is not None:
                check_width(trained, evidence.ends[place], site, fit.xx.shape[-1])
                found[place, family] = replace(trained, sae=placed(trained.sae, fit.xx.device))
    return found


def some_documents(source: ActivationSource, most: int) -> ActivationSource:
    """The source with at most so many eval documents, if it is models; any other as it is."""
    if isinstance(source, ModelActivations) and source.probe.eval > most:
        return replace(source, probe=replace(source.probe, eval=most))
    return source


def score_rows(
    evidence: Evidence,
    study: str,
    site: str,
    ends: tuple[End, End],
    family: str,
    metrics: Mapping[Metric, Tensor],
    *,
    variant: str,
    control: str | None = None,
    **about: Any,
) -> Iterator[Row]:
    """One row a metric of the SAE of the first end on the second."""
    extra = {"sae": family, "variant": variant} | ({} if control is None else {"control": control})
    (source, source_step), (target, target_step) = ends
    for (metric, convention), scores in metrics.items():
        value, low, high = bounded(scores)
        yield evidence.row(
            study,
            site,
            "eval",
            metric,
            value,
            low=low,
            high=high,
            convention=convention,
            source=source,
            target=target,
            source_step=source_step,
            target_step=target_step,
            n_seeds=len({source, target}),
            extra=extra,
            **about,
        )
