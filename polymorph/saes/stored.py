"""SAEs in a cohort's folder, in the form in which SAELens saves them; nothing is unpickled on the way."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.constants import SAE_CFG_FILENAME as CONFIG
from sae_lens.constants import SAE_WEIGHTS_FILENAME as WEIGHTS
from torch import Tensor

from polymorph.errors import RequestError, RunError
from polymorph.saes.trained import TrainedSAE, Variant
from polymorph.store import Cohort, CorruptError, Manifest, Member, check_name
from polymorph.store.canonical_json import parse_mapping, readable
from polymorph.store.tensors import from_bytes, to_bytes

ARCHITECTURES = ("standard", "topk", "abstopk", "gated", "jumprelu", "matching_pursuit")
"""SAELens' inference forms that read and write one site, every token by itself: no transcoder, none in time."""
CHOICES: Mapping[str, tuple[object, ...]] = {
    "architecture": ARCHITECTURES,
    "dtype": ("float32", "float64", "torch.float32", "torch.float64"),
    "reshape_activations": ("none",),
    "apply_b_dec_to_input": (True, False),
}
VARIANTS: tuple[Variant, ...] = get_args(Variant)
OWN_FACTS = frozenset({"kind", "seed", "step", "site", "name", "family", "variant", "sae_seed"})


def sae_files(sae: SAE[Any]) -> dict[str, bytes]:
    """What SAELens would save of it for inference: equal SAEs give equal bytes, and the SAE stays as it is.

    An SAE in training becomes the one that is scored: the norms of its decoder are folded, and what picks over
    a batch becomes a threshold. `RunError` for one that could not be read again.
    """
    weights = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
    if isinstance(sae, TrainingSAE):
        sae.process_state_dict_for_saving_inference(weights)
        config = sae.cfg.get_inference_sae_cfg_dict()
    else:
        sae.process_state_dict_for_saving(weights)
        config = sae.cfg.to_dict()
    if (problem := config_problem(config) or weights_problem(weights)) is not None:
        raise RunError(f"this SAE cannot be kept: {problem}")
    try:
        # SAELens gathers the keys from a set, so that their order differs from process to process.
        said = readable({**config, "device": "cpu"})
    except ValueError as error:
        raise RunError(f"this SAE cannot be kept: its config is not plain data: {error}") from error
    return {CONFIG: said, WEIGHTS: to_bytes(weights)}


def config_problem(config: Mapping[str, Any]) -> str | None:
    """What in the config of an SAE cannot be used; None if nothing is."""
    for key, choices in CHOICES.items():
        # Where an SAE of today may leave a key out, SAELens takes what stands first among the choices.
        value = config.get(
            key, choices[0] if key in ("reshape_activations", "apply_b_dec_to_input") else None
        )
        if value not in choices:
            return f"{key}={reprlib.repr(value)}: one of {', '.join(str(choice) for choice in choices)}"
    for key in ("d_in", "d_sae"):
        if type(value := config.get(key)) is not int or value < 1:
            return f"{key}={reprlib.repr(value)}: a whole number from 1 on"
    limit = config.get("max_iterations")
    if limit is not None and (type(limit) is not int or limit > config["d_sae"]):  # or it might not end
        return f"max_iterations={reprlib.repr(limit)}: none, or at most d_sae"
    return None


def weights_problem(weights: Mapping[str, Tensor]) -> str | None:
    """What in the weights of an SAE cannot be used; None if nothing is."""
    for name, tensor in weights.items():
        if tensor.dtype not in (torch.float32, torch.float64):
            return f"{reprlib.repr(name)} is of {tensor.dtype}: torch.float32 or torch.float64"
        if not bool(tensor.float().isfinite().all()):
            return f"{reprlib.repr(name)} holds values that are not finite in float32"
    return None


def sae_from_files(files: Mapping[str, bytes], path: Path) -> SAE[Any]:
    """The SAE that `SAE.load_from_disk` makes of these files, which were read from `path`; evaluation mode.

    `CorruptError` if they are not those of an SAE that can be run.
    """
    if set(files) != {CONFIG, WEIGHTS}:
        raise CorruptError(f"{path} holds {sorted(files)}, not {CONFIG} and {WEIGHTS}")
    config = parse_mapping(files[CONFIG], path / CONFIG)
    if (problem := config_problem(config)) is not None:
        raise CorruptError(f"{path / CONFIG}: {problem}")
    weights = from_bytes(files[WEIGHTS], path / WEIGHTS)
    if (problem := weights_problem(weights)) is not None:
        raise CorruptError(f"{path / WEIGHTS}: {problem}")
    try:
        return _assembled(config, weights, path)
    # What a config may say has no end, and neither have the types of error that it raises.
    except Exception as error:
        raise CorruptError(f"{path} is no SAE of SAELens: {' '.join(str(error).split())[:500]}") from error


def _assembled(config: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> SAE[Any]:
    def read_already(*_: Any, **__: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {**config, "device": "cpu"}, dict(weights)

    sae = SAE.load_from_disk(path, converter=read_already).eval()
    _try(sae)
    return sae


@torch.no_grad()
def _try(sae: SAE[Any]) -> None:
    """Some configs that contradict themselves are noticed only when the SAE is used, or saved."""
    token = torch.zeros(1, sae.cfg.d_in)
    if (shape := sae(token).shape) != token.shape:
        raise ValueError(f"it gives {list(shape)} for {list(token.shape)}")
    sae.cfg.to_dict()


def sae_name(family: str, variant: Variant) -> str:
    """Its name in the store; `RequestError` for a family that could be taken for the variant of another."""
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: one of {', '.join(VARIANTS)}")
    if (taken := family_and_variant(check_name(family, "family"))[1]) != "distinct":
        raise RequestError(f"family={family!r} must not end in -{taken}, which stands for a variant")
    return family if variant == "distinct" else f"{family}-{variant}"


def family_and_variant(name: str) -> tuple[str, Variant]:
    """What `sae_name` made the name of."""
    family, _, last = name.rpartition("-")
    for variant in VARIANTS:
        if family and last == variant != "distinct":
            return family, variant
    return name, "distinct"


def publish(member: Member, step: int, site: str, trained: TrainedSAE) -> Manifest:
    """Keep it with the member; the same again is benign, another one raises `ConflictError`."""
    if given := sorted(OWN_FACTS & set(trained.facts)):
        raise ValueError(f"the facts {', '.join(given)} are the store's own")
    own = {"family": trained.family, "variant": trained.variant, "sae_seed": trained.seed}
    name = sae_name(trained.family, trained.variant)
    return member.publish_sae(step, site, name, sae_files(trained.sae), {**trained.facts, **own})


def read_trained(member: Member, step: int, site: str, family: str, variant: Variant) -> TrainedSAE:
    """The SAE in float32, its weights frozen; `CorruptError` if it is not there whole."""
    name = sae_name(family, variant)
    path = member.sae_path(step, site, name)
    published = member.read_sae(step, site, name)
    facts = published.manifest.facts
    for key, value in (("family", family), ("variant", variant)):
        if (found := facts.get(key)) != value:
            raise CorruptError(f"{path} was published as {key} {found!r}, not {value!r}")
    if (seed := facts.get("sae_seed")) is not None and type(seed) is not int:
        raise CorruptError(f"{path} was published with sae_seed {seed!r}, which is no seed")
    sae = sae_from_files(published.files, path).to(torch.float32).requires_grad_(False)
    others = {key: value for key, value in facts.items() if key not in OWN_FACTS}
    return TrainedSAE(sae, family, variant, seed, published.manifest.digest, others)


@dataclass(frozen=True)
class StoredDictionaries:
    """The SAEs in a cohort's folder. Each is read and verified once, when it is asked for.

    What there is, is told from the manifests that are there; what it is, from the facts in them. A damaged SAE
    is listed, and `read` raises `CorruptError`.
    """

    cohort: Cohort
    lenient: bool = field(default=False, kw_only=True)
    """Whether a damaged SAE counts as none, and is noted in `problems` where it is first asked for."""
    problems: list[str] = field(default_factory=list, init=False, compare=False)
    _kept: dict[tuple[int, int, str, str], TrainedSAE] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _sound: dict[tuple[int, int, str, str], bool] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def families(self) -> list[str]:
        found: set[str] = set()
        for member in self.cohort.members():
            for step, site, name in member.saes():
                family, _ = family_and_variant(name)
                if family not in found and self._counts(member, step, site, name):
                    found.add(family)
        return sorted(found)

    def read(
        self, seed: int, step: int, site: str, family: str, variant: Variant = "distinct"
    ) -> TrainedSAE | None:
        name = sae_name(family, variant)
        if (seed, step, site, name) not in self._kept:
            if step not in self.steps(seed, site, family, variant):
                return None
            member = self.cohort.member(seed)
            self._kept[seed, step, site, name] = read_trained(member, step, site, family, variant)
        return self._kept[seed, step, site, name]

    def steps(self, seed: int, site: str, family: str, variant: Variant = "distinct") -> list[int]:
        member, name = self.cohort.member(seed), sae_name(family, variant)
        listed = [step for step, *rest in member.saes() if tuple(rest) == (site, name)]
        return [step for step in listed if self._counts(member, step, site, name)]

    def _counts(self, member: Member, step: int, site: str, name: str) -> bool:
        """Whether one that is listed is there: always, or, if lenient, where it can be read, which is tried once.

        What is tried is not kept: of all that is listed, few may be asked for.
        """
        if not self.lenient:
            return True
        key = (member.seed, step, site, name)
        if key not in self._sound:
            try:
                read_trained(member, step, site, *family_and_variant(name))
                self._sound[key] = True
            except CorruptError as error:
                self.problems.append(str(error))
                self._sound[key] = False
        return self._sound[key]
