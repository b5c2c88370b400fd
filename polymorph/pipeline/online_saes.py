"""SAEs alongside training: kept trained from checkpoint to checkpoint, and their transfer between members.

A member's SAEs at a checkpoint go on from those of its previous one, on fresh activations of the new weights. They
are published like any others, as the variant `online`, so that a run that was interrupted goes on from the last of
them, and so that members in processes of their own meet in the cohort's folder.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import LIVE, Row
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.pair_cache import PairCache, PairRows
from polymorph.pipeline.rows_version import rows_version
from polymorph.progress import SILENT
from polymorph.saes.config import ESTIMATED, STACKABLE, SAEConfig
from polymorph.saes.places import Place, chosen_sites
from polymorph.saes.run import SAETraining
from polymorph.saes.stored import StoredDictionaries, family_and_variant, sae_name
from polymorph.saes.trained import Variant
from polymorph.studies.sae_transfer import STUDY
from polymorph.studies.sae_transfer.rows import live_rows
from polymorph.training.interruption import Interruption


def check_online(config: SAEConfig) -> None:
    """`ValueError` for options with which training cannot go on from what is kept."""
    if (norm := config.options.get("normalize_activations")) in ESTIMATED:
        raise ValueError(
            f"callbacks.cross_seed.sae=online: sae.options.normalize_activations={norm} is estimated once and folded "
            "into the weights; training cannot go on from those"
        )
    try:
        online(config)
    except ValueError as error:
        raise ValueError(
            f"callbacks.cross_seed.sae=online, sae.online_steps={config.online_steps}: {error}"
        ) from error
    if config.architecture not in STACKABLE:
        raise ValueError(
            f"callbacks.cross_seed.sae=online: sae.architecture={config.architecture} is kept in a form that "
            f"training cannot go on from; one of {', '.join(STACKABLE)}"
        )


def online(config: SAEConfig) -> SAEConfig:
    """The same for the few steps of a checkpoint.

    Adam's moments and the account of dead features begin anew there, so a feature is dead after half of the steps.
    """
    window = min(config.dead_feature_window, max(1, config.online_steps // 2))
    return replace(config, steps=config.online_steps, dead_feature_window=window)


@dataclass
class OnlineSAEs:
    """The SAEs of one family that accompany the training of a cohort.

    `variant` is `online`, trained for `config.online_steps` at every checkpoint, or `distinct`, trained once for
    `config.steps` where a member ends.
    """

    comparison: Comparison
    config: SAEConfig
    variant: Variant = "online"
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        if self.variant == "online":
            self.config = online(self.config)

    def train(self, step: int, seeds: Iterable[int], interruption: Interruption | None = None) -> None:
        """Train and publish the SAEs of these members at a checkpoint, if they are not there yet."""
        sites = chosen_sites(self.config, self.comparison.sites)
        self._training(step, interruption or Interruption()).run(
            [Place(seed, step, site, self.variant) for seed in seeds for site in sites]
        )

    def _training(self, step: int, interruption: Interruption) -> SAETraining:
        # No two checkpoints see the same documents.
        first = step * self.config.steps if self.variant == "online" else 0
        return replace(
            self.comparison.sae_training(self.config, first),
            progress=SILENT,
            stopped=lambda: interruption.requested,
            listen=interruption.listen,
            say=self.say,
            announced=False,
        )

    def rows(self, pairs: Sequence[PairLabel]) -> list[Row]:
        """The transfer between members at one step, for pairs that both have SAEs there; computed once a pair."""
        sites = chosen_sites(self.config, self.comparison.sites)
        study = SAETransfer(self.config.family, self.variant, tuple(sites))
        return PairCache(self.comparison).rows(study, pairs).rows


@dataclass(frozen=True)
class SAETransfer:
    """The transfer of the SAEs of one family between two members, in brief."""

    family: str
    variant: Variant
    sites: Sequence[str]
    name = f"{STUDY.name}{LIVE}"
    folder = STUDY.name

    def identity(self, comparison: Comparison, pair: PairLabel) -> Mapping[str, Any] | None:
        """Every SAE; None if one of them is missing, or the pair is a ceiling."""
        if pair.role == "ceiling":
            return None
        digests, name = [], sae_name(self.family, self.variant)
        for seed, step in pair.ends:
            member = comparison.cohort.member(seed)
            for site in self.sites:
                if not member.has_sae(step, site, name):
                    return None
                digests.append(member.read_sae(step, site, name).manifest.digest)
        return {"version": rows_version(STUDY.name), "saes": digests}

    def rows(self, comparison: Comparison, pairs: Sequence[PairLabel]) -> PairRows:
        only = _OneFamily(comparison.cohort, self.family)
        for pair in pairs:
            evidence = replace(comparison.evidence(pair.ends, [pair]), histories=(), dictionaries=only)
            yield pair, [row.of_study(self.name) for row in live_rows(evidence, self.variant)]


def transfers_there(comparison: Comparison, pair: PairLabel) -> list[SAETransfer]:
    """Of all SAEs that both members have at their steps."""
    first, second = (
        {(name, site) for at, site, name in comparison.cohort.member(seed).saes() if at == step}
        for seed, step in pair.ends
    )
    both = first & second
    return [
        SAETransfer(*family_and_variant(name), tuple(s for s in comparison.sites if (name, s) in both))
        for name in sorted({name for name, _ in both})
    ]


@dataclass(frozen=True)
class _OneFamily(StoredDictionaries):
    """The SAEs of a cohort, as if there were no other family."""

    family: str = ""

    def families(self) -> list[str]:
        return [self.family]
