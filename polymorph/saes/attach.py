"""SAEs that were made elsewhere with SAELens are checked, and copied into the cohort."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sae_lens import SAE

from polymorph.checks import nearest
from polymorph.cohort import Cohort, ConflictError, CorruptError, Member, files, looking
from polymorph.cohort.plain import sha256
from polymorph.cohort.publishing import LARGEST_FILE
from polymorph.errors import RequestError
from polymorph.saes.stored import CONFIG, WEIGHTS, publish, read_trained, sae_from_files
from polymorph.saes.trained import TrainedSAE

UNFOLDED = ("expected_average_only_in", "covariance_whitening")
"""Norms of the inputs that SAELens folds into the weights when training ends, and then no longer names."""


def attach_sae(
    cohort: Cohort,
    folder: Path,
    seed: int,
    step: int | Literal["last"],
    site: str,
    family: str,
    sites: Sequence[str],
) -> TrainedSAE:
    """Copy the SAE in `folder` into the cohort, as variant `attached` of `family`; the same again is benign.

    `folder` holds `cfg.json` and `sae_weights.safetensors`; what else it may hold is not opened. `sites` are
    those that the cohort's model has. `RequestError` says what does not fit, and then nothing was written.
    """
    member = _member(cohort, seed)
    at = _step(member, step)
    if site not in sites:
        raise RequestError(f"site={site!r}{nearest(site, sites)}: one of {', '.join(sites)}")
    contents = {name: _read(Path(folder), name) for name in (CONFIG, WEIGHTS)}
    sae = _loaded(contents, Path(folder))
    _check_fits(sae, cohort.identity["architecture"].get("d_model"), Path(folder))
    origin = {name: sha256(data) for name, data in contents.items()}
    facts = {"origin": origin, "architecture": sae.cfg.architecture()}
    try:
        publish(member, at, site, TrainedSAE(sae, family, "attached", None, facts=facts))
    except ConflictError as error:
        raise RequestError(
            f"family={family!r}: another SAE was attached as {member.sae_path(at, site, f'{family}-attached')}; "
            "give this one another family"
        ) from error
    return read_trained(member, at, site, family, "attached")


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
        return looking.read_whole(files.real(folder / name), LARGEST_FILE)
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


def _check_fits(sae: SAE[Any], d_model: Any, folder: Path) -> None:
    if sae.cfg.d_in != d_model:
        raise RequestError(
            f"folder={folder}: its SAE reads d_in={sae.cfg.d_in} dimensions, and the cohort's members have "
            f"d_model={d_model}: an SAE of such a model is needed"
        )
    if sae.cfg.normalize_activations in UNFOLDED:
        raise RequestError(
            f"folder={folder}: normalize_activations={sae.cfg.normalize_activations} is not folded into the "
            "weights yet: take what SAELens saved when training had ended"
        )
