"""SAEs that were made elsewhere with SAELens are checked, and copied into the cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sae_lens import SAE

from polymorph.checks import nearest
from polymorph.errors import RequestError
from polymorph.saes.config import ESTIMATED
from polymorph.saes.coordinates import sae_in_coordinates
from polymorph.saes.stored import CONFIG, WEIGHTS, publish, read_trained, sae_from_files, sae_name
from polymorph.saes.trained import TrainedSAE
from polymorph.store import Cohort, CorruptError, Member, files, safe_read
from polymorph.store.canonical_json import sha256
from polymorph.store.publication import LARGEST_FILE


@dataclass(frozen=True)
class Attachment:
    """An SAE from elsewhere that fits where it is to go; nothing is written yet."""

    member: Member
    step: int
    site: str
    trained: TrainedSAE

    def publish(self) -> TrainedSAE:
        """The same again is benign."""
        publish(self.member, self.step, self.site, self.trained)
        return read_trained(self.member, self.step, self.site, self.trained.family, "attached")


def attachment(
    cohort: Cohort,
    folder: Path,
    seed: int,
    step: int | Literal["last"],
    site: str,
    family: str,
    sites: Sequence[str],
    d: int,
) -> Attachment:
    """The SAE in `folder`, to become variant `attached` of `family`; `RequestError` says what does not fit.

    `folder` holds `cfg.json` and `sae_weights.safetensors`; what else it may hold is not opened. `sites` are
    those that the cohort's model has, and `d` is how many dimensions its activations are read in.
    """
    member = _member(cohort, seed)
    at = _step(member, step)
    if site not in sites:
        raise RequestError(f"site={site!r}{nearest(site, sites)}: one of {', '.join(sites)}")
    contents = {name: _read(Path(folder), name) for name in (CONFIG, WEIGHTS)}
    loaded, d_model = _loaded(contents, Path(folder)), cohort.identity["architecture"].get("d_model")
    sae = _as_read(loaded, d, d_model)
    _check_fits(sae, d, d_model, Path(folder))
    _check_site(sae, site, sites, Path(folder))
    origin = {name: sha256(data) for name, data in contents.items()}
    facts = {"origin": origin, "architecture": sae.cfg.architecture()}
    if sae is not loaded:
        facts["read_in"] = f"{d} coordinates of its {d_model}"
    found = Attachment(member, at, site, TrainedSAE(sae, family, "attached", None, facts=facts))
    _check_free(found)
    return found


def attach_sae(
    cohort: Cohort,
    folder: Path,
    seed: int,
    step: int | Literal["last"],
    site: str,
    family: str,
    sites: Sequence[str],
    d: int,
) -> TrainedSAE:
    """Copy the SAE in `folder` into the cohort; `RequestError` says what does not fit, and then nothing was written."""
    return attachment(cohort, folder, seed, step, site, family, sites, d).publish()


def _check_site(sae: SAE[Any], site: str, sites: Sequence[str], folder: Path) -> None:
    """What it says of another model's hooks tells nothing here."""
    own = sae.cfg.metadata.hook_name
    if own != site and own in sites:
        raise RequestError(
            f"site={site!r}: the SAE in {folder} was trained at {own!r}, as its {CONFIG} says in "
            "metadata.hook_name: attach it there"
        )


def _check_free(found: Attachment) -> None:
    """A damaged one may be replaced."""
    member, trained = found.member, found.trained
    name = sae_name(trained.family, trained.variant)
    try:
        there = member.read_sae(found.step, found.site, name).manifest.facts
    except CorruptError:
        return
    if there.get("origin") != trained.facts["origin"]:
        raise RequestError(
            f"family={trained.family!r}: another SAE was attached as "
            f"{member.sae_path(found.step, found.site, name)}; give this one another family"
        )


def _member(cohort: Cohort, seed: int) -> Member:
    members = {member.seed: member for member in cohort.members()}
    if seed not in members:
        there = ", ".join(str(known) for known in members) or "none"
        raise RequestError(f"seed={seed!r}: the members of {cohort.folder} are {there}")
    return members[seed]


def _step(member: Member, step: int | Literal["last"]) -> int:
    steps = member.steps()
    if not steps:
        raise RequestError(f"step={step!r}: {member.name} has no checkpoint yet")
    if step == "last":
        return steps[-1]
    if step not in steps:
        near = sorted(steps, key=lambda there: abs(there - step))[:3] if type(step) is int else steps[-1:]
        close = ", ".join(str(there) for there in sorted(near))
        raise RequestError(
            f"step={step!r}: {member.name} has no checkpoint there, but at {close}; or step=last"
        )
    return step


def _read(folder: Path, name: str) -> bytes:
    try:
        # What the user names may be, or hold, links: a download cache is made of them.
        return safe_read.read_whole(files.real(folder / name), LARGEST_FILE)
    except CorruptError as error:
        raise RequestError(
            f"folder={folder}: {error}; a folder that SAELens saved holds {CONFIG} and {WEIGHTS}"
        ) from error


def _loaded(contents: Mapping[str, bytes], folder: Path) -> SAE[Any]:
    try:
        return sae_from_files(contents, folder)
    except CorruptError as error:
        raise RequestError(
            f"folder={folder}: {error}; right is what SAELens' save_inference_model writes"
        ) from error


def _as_read(sae: SAE[Any], d: int, d_model: Any) -> SAE[Any]:
    """An SAE of the whole stream, where the cohort's is read without its mean, in the coordinates of that."""
    if not sae.cfg.d_in == d_model == d + 1:
        return sae
    try:
        return sae_in_coordinates(sae, d_model)
    except ValueError as error:
        raise RequestError(
            f"an SAE of {d_model} dimensions cannot be read in {d} coordinates: {error}"
        ) from error


def _check_fits(sae: SAE[Any], d: int, d_model: Any, folder: Path) -> None:
    if sae.cfg.d_in != d:
        less = (
            "" if d == d_model else f", read in {d} coordinates: without the mean, which LayerNorm subtracts"
        )
        raise RequestError(
            f"folder={folder}: its SAE reads d_in={sae.cfg.d_in} dimensions, and the cohort's members have "
            f"d_model={d_model}{less}: an SAE of such activations is needed"
        )
    if sae.cfg.normalize_activations in ESTIMATED:
        raise RequestError(
            f"folder={folder}: normalize_activations={sae.cfg.normalize_activations} is not folded into the "
            "weights yet: take what SAELens saved when training had ended"
        )
