"""Which SAEs a config asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polymorph.checks import nearest
from polymorph.errors import RequestError
from polymorph.saes.config import SAEConfig
from polymorph.saes.trained import Variant
from polymorph.store import Cohort

End = tuple[int, int]
"""A member's seed and one of its steps."""


@dataclass(frozen=True)
class Place:
    """Where one SAE belongs."""

    seed: int
    step: int
    site: str
    variant: Variant


def places_of(
    cohort: Cohort, config: SAEConfig, sites: Sequence[str], seeds: Sequence[int] | None = None
) -> list[Place]:
    """Every SAE that the config asks for; `RequestError` names what the cohort does not have."""
    there = {member.seed: member.steps() for member in cohort.members() if member.steps()}
    asked = list(there) if config.members == "all" else _ints("sae.members", config.members)
    if seeds is not None and config.members != "all" and not set(asked) & set(seeds):
        raise RequestError(f"sae.members={asked}: none of seed={list(seeds)}, which this request trains")
    asked = [seed for seed in asked if seeds is None or seed in seeds]
    if unknown := [seed for seed in asked if seed not in there]:
        known = ", ".join(map(str, there)) or "none"
        raise RequestError(
            f"sae.members: {cohort.name} has no seed {unknown[0]} with a checkpoint; there are {known}"
        )
    if not asked:
        raise RequestError(f"cohort.name={cohort.name}: no member has a checkpoint yet; train one first")
    return [
        Place(seed, step, site, variant)
        for seed in asked
        for step in _steps(config, seed, there[seed])
        for site in chosen_sites(config, sites)
        for variant in config.variants
    ]


def chosen_sites(config: SAEConfig, sites: Sequence[str]) -> list[str]:
    """`sae.sites`, in the order of the model."""
    if config.sites == "all":
        return list(sites)
    asked = list(config.sites) if isinstance(config.sites, list | tuple) else [config.sites]
    if not asked:
        raise RequestError(f"sae.sites=[]: all, or a list of {', '.join(sites)}")
    for site in asked:
        if site not in sites:
            raise RequestError(f"sae.sites={site}{nearest(str(site), sites)}: one of {', '.join(sites)}")
    return [site for site in sites if site in asked]


def check_choices(config: SAEConfig, seeds: Sequence[int]) -> None:
    """`RequestError` for members and checkpoints that could not be chosen, of those that are yet to be trained."""
    if config.members != "all" and not set(_ints("sae.members", config.members)) & set(seeds):
        raise RequestError(
            f"sae.members={config.members}: none of seed={list(seeds)}, which this request trains"
        )
    if config.at not in ("last", "all"):
        _ints("sae.at", config.at)


def _steps(config: SAEConfig, seed: int, steps: Sequence[int]) -> list[int]:
    if config.at == "last":
        return [steps[-1]]
    if config.at == "all":
        return list(steps)
    asked = _ints("sae.at", config.at)
    if unknown := [step for step in asked if step not in steps]:
        raise RequestError(
            f"sae.at: seed {seed} has no checkpoint at step {unknown[0]}; there are {', '.join(map(str, steps))}"
        )
    return asked


def _ints(key: str, values: Any) -> list[int]:
    many = list(values) if isinstance(values, list | tuple) else [values]
    if not many or any(type(value) is not int or value < 0 for value in many):
        words = "all, last" if key == "sae.at" else "all"
        raise RequestError(f"{key}={values!r}: {words}, or a list of whole numbers from 0 on")
    if len(set(many)) < len(many):
        raise RequestError(f"{key}={values!r}: each of them once")
    return many
