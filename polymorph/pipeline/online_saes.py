"""SAEs alongside training: kept trained from checkpoint to checkpoint, and their transfer between members.

A member's SAEs at a checkpoint go on from those of its previous one, on fresh activations of the new weights. They
are published like any others, as the variant `online`, so that a run that was interrupted goes on from the last of
them, and so that members in processes of their own meet in the cohort's folder.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.rows_version import rows_version
from polymorph.progress import SILENT
from polymorph.saes.config import ESTIMATED, STACKABLE, SAEConfig
from polymorph.saes.places import Place, chosen_sites
from polymorph.saes.run import SAETraining
from polymorph.saes.stored import StoredDictionaries, sae_name
from polymorph.saes.trained import Variant
from polymorph.store import digest
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
        rows: list[Row] = []
        for pair in pairs:
            if pair.role == "ceiling" or (key := self._key(pair)) is None:
                continue
            own = self.comparison.stored(key, pair)
            if own is None:
                own = list(live_rows(self._evidence(pair), self.variant))
                self.comparison.store(key, pair, own)
            rows += own
        return rows

    def _evidence(self, pair: PairLabel) -> Evidence:
        evidence = self.comparison.evidence(pair.ends, [pair])
        only = _OneFamily(self.comparison.cohort, self.config.family)
        return replace(evidence, histories=(), dictionaries=only)

    def _key(self, pair: PairLabel) -> str | None:
        sites = chosen_sites(self.config, self.comparison.sites)
        return _transfer_key(self.comparison, pair, sae_name(self.config.family, self.variant), sites)


def _transfer_key(comparison: Comparison, pair: PairLabel, name: str, sites: Sequence[str]) -> str | None:
    """Of both checkpoints, the probe, and every SAE of this name; None if one of them is missing."""
    digests = []
    for seed, step in pair.ends:
        member = comparison.cohort.member(seed)
        for site in sites:
            if not member.has_sae(step, site, name):
                return None
            digests.append(member.read_sae(step, site, name).manifest.digest)
    about = {"study": "sae_transfer live", "version": rows_version("sae_transfer")}
    return digest({"pair": comparison.key(pair), "saes": digests, **about})


def stored_transfer(comparison: Comparison, pairs: Iterable[PairLabel]) -> list[Row]:
    """What is there of the transfer that accompanied the training of these pairs, of all SAEs."""
    rows: list[Row] = []
    for pair in pairs:
        first, second = (
            {(name, site) for at, site, name in comparison.cohort.member(seed).saes() if at == step}
            for seed, step in pair.ends
        )
        for name in sorted({name for name, _ in first & second} if pair.role == "estimate" else ()):
            sites = [site for site in comparison.sites if (name, site) in first & second]
            key = _transfer_key(comparison, pair, name, sites)
            rows += (comparison.stored(key, pair) or []) if key is not None else []
    return rows


@dataclass(frozen=True)
class _OneFamily(StoredDictionaries):
    """The SAEs of a cohort, as if there were no other family."""

    family: str = ""

    def families(self) -> list[str]:
        return [self.family]
