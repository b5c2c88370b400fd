"""What a study may need of members beside the moments of their activations, and whether they have it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from polymorph.evidence.evidence import Evidence

Need = Literal["models", "labels", "SAEs", "checkpoints", "sites"]
Kind = Literal["given", "planted", "trained"]
"""Of a cohort: activations that somebody has, planted members, members that are models."""

LACKING: Mapping[Need, str] = {
    "models": "members that are models",
    "labels": "members that say labels",
    "SAEs": "an SAE of a member at its checkpoint (python train.py stage=sae)",
    "checkpoints": "a member with at least two checkpoints",
    "sites": "more than one site",
}
_OF_MODELS: frozenset[Need] = frozenset({"models", "labels", "checkpoints", "sites"})
BEYOND: Mapping[Kind, frozenset[Need]] = {
    "trained": frozenset(),
    "planted": _OF_MODELS,
    "given": _OF_MODELS | {"SAEs"},
}
"""What members of a kind of cohort never have."""


def met(need: Need, evidence: "Evidence") -> bool:
    """Whether these members have it."""
    if need == "models":
        return evidence.functions is not None
    if need == "labels":
        from polymorph.models.activations import Predicting  # torch, which a registry must not load

        return isinstance(evidence.source, Predicting)
    if need == "SAEs":
        return bool(evidence.dictionaries.families())
    if need == "checkpoints":
        return any(len(history.steps) > 1 for history in evidence.histories)
    return len(evidence.sites) > 1
