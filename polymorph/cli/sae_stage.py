"""`stage=sae`: the SAEs that a request asks for are trained, or one made elsewhere is attached."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from polymorph.cli.config import TrainConfig
from polymorph.cli.ending import Ending
from polymorph.errors import RequestError
from polymorph.pipeline.comparison import Comparison
from polymorph.progress import on_terminal
from polymorph.saes.attach import Attachment, attachment
from polymorph.saes.disk import KEYS, stored_bytes
from polymorph.saes.places import Place, check_choices, chosen_sites, places_of
from polymorph.saes.run import SAETraining, check_memory, was_stopped
from polymorph.saes.stored import sae_name
from polymorph.saes.trainers import try_options
from polymorph.store import Cohort, CorruptError, Status, check_writable
from polymorph.tracking.loggers import Breaker, Tracking
from polymorph.training.disk import Ahead, check_room
from polymorph.training.grouping import is_final
from polymorph.training.interruption import interruptible
from polymorph.training.numerics import device_of, prepare_process


def check(job: TrainConfig) -> None:
    """Refuse what cannot be right (`RequestError`), before anything is trained."""
    check_writable(job.cohort.folder)
    cohort = Cohort.open(job.cohort.folder)
    comparison = Comparison.of(cohort, device_of(job.trainer.accelerator))
    places = places_of(cohort, job.sae, comparison.sites)
    if job.sae.attach is not None:
        _attachment(job, comparison)
    else:
        training = _training(job, comparison)
        training.check_memory(places, _memory(comparison.device))
        try_options(job.sae, comparison.d)
        training.check(places)
        missing = sum(not training.holds(place) for place in places)
        check_room([Ahead(job.cohort.folder, missing * stored_bytes(job.sae, comparison.d), KEYS)])


def check_ahead(job: TrainConfig, sites: Sequence[str], d: int) -> None:
    """What can be known of SAEs before the members are trained that they are for (`RequestError`)."""
    chosen = chosen_sites(job.sae, sites)
    for variant in job.sae.variants:
        sae_name(job.sae.family, variant)
    check_choices(job.sae, job.seeds)
    asked = len(job.seeds) * len(chosen) * len(job.sae.variants)
    device = device_of(job.trainer.accelerator)
    check_memory(job.sae, asked, d, device, _memory(device))
    try_options(job.sae, d)


def check_against_there(job: TrainConfig) -> None:
    """Before members are trained whose SAEs come after: `RequestError` if some are there, made in another way."""
    try:
        cohort = Cohort.open(job.cohort.folder)
    except RequestError:
        return  # the cohort is not there yet
    comparison = Comparison.of(cohort, device_of(job.trainer.accelerator))
    if any(member.seed in job.seeds and member.steps() for member in cohort.members()):
        _training(job, comparison).check(places_of(cohort, job.sae, comparison.sites, job.seeds))


def run(job: TrainConfig, stopped: bool = False) -> bool:
    """Train and publish whatever is missing; whether this process was asked to stop, then or before."""
    if stopped:
        print(f"SAEs of {job.sae.family}: not started, since this process was asked to stop")
        return True
    comparison = Comparison.of(Cohort.open(job.cohort.folder), device_of(job.trainer.accelerator))
    if job.sae.attach is not None:
        _attach(job, comparison)
        return False
    prepare_process(1)  # stacks share the cores, not products
    places = places_of(comparison.cohort, job.sae, comparison.sites, _seeds(job))
    with interruptible() as interruption, _logging(job, comparison.cohort, places) as loggers:
        training = _training(job, comparison)
        training.loggers = loggers
        training.stopped, training.listen = lambda: interruption.requested, interruption.listen
        training.run(places)
        return interruption.requested


def outcome(job: TrainConfig, endings: Sequence[Ending]) -> str:
    """`completed` if all that was asked for is there, else `preempted`, `not started` or `failed`."""
    if job.stage == "all" and not all(is_final(status) for status in _statuses(job)):
        return "not started"  # that of the members says why
    comparison = Comparison.of(Cohort.open(job.cohort.folder), device_of(job.trainer.accelerator))
    if job.sae.attach is not None:
        found = _attachment(job, comparison)
        place = Place(found.member.seed, found.step, found.site, "attached")
        return "completed" if _is_there(comparison.cohort, job, place) else "failed"
    places = places_of(comparison.cohort, job.sae, comparison.sites, _seeds(job))
    _training(job, comparison).check(places)
    there = [place for place in places if _is_there(comparison.cohort, job, place)]
    print(f"{len(there)} of {len(places)} SAEs of {job.sae.family} are in {job.cohort.folder}")
    if len(there) == len(places):
        return "completed"
    members = [comparison.cohort.member(place.seed) for place in places if place not in there]
    stopped = any(ending.stopped for ending in endings) or any(map(was_stopped, members))
    return "preempted" if stopped else "failed"


def _is_there(cohort: Cohort, job: TrainConfig, place: Place) -> bool:
    """Whether it is there whole."""
    try:
        cohort.member(place.seed).read_sae(place.step, place.site, sae_name(job.sae.family, place.variant))
    except CorruptError:
        return False
    return True


def _statuses(job: TrainConfig) -> list[Status | None]:
    cohort = Cohort.open(job.cohort.folder)
    return [cohort.member(seed).status() for seed in job.seeds]


def _seeds(job: TrainConfig) -> list[int] | None:
    """After `stage=all` those that were trained; `stage=sae` goes by `sae.members`."""
    return job.seeds if job.stage == "all" else None


def _training(job: TrainConfig, comparison: Comparison) -> SAETraining:
    return replace(comparison.sae_training(job.sae), progress=on_terminal(job.trainer.progress))


def _attachment(job: TrainConfig, comparison: Comparison) -> Attachment:
    """What `sae.attach` means, checked; nothing is written."""
    chosen = chosen_sites(job.sae, comparison.sites)
    members = job.sae.members if isinstance(job.sae.members, list) else []
    if len(chosen) != 1 or len(members) != 1:
        raise RequestError("sae.attach: say whose it is, with one each: sae.members=[0] sae.sites=[<site>]")
    at = job.sae.at
    step = at if at == "last" else at[0] if isinstance(at, list) and len(at) == 1 else None
    if step is None:
        raise RequestError(f"sae.at={at!r}: last, or a list of one step, where an SAE is attached")
    folder = Path(str(job.sae.attach))
    return attachment(
        comparison.cohort,
        folder,
        members[0],
        step,
        chosen[0],
        job.sae.family,
        comparison.sites,
        comparison.d,
    )


def _attach(job: TrainConfig, comparison: Comparison) -> None:
    found = _attachment(job, comparison)
    found.publish()
    print(f"attached {job.sae.attach} to seed {found.member.seed} at {found.site} as {job.sae.family}")


@contextlib.contextmanager
def _logging(job: TrainConfig, cohort: Cohort, places: Sequence[Place]) -> Iterator[dict[int, Breaker]]:
    """A run of the group for every member with something to train, of the kind `sae`; ended in any case."""
    tracking = Tracking(job.logger, cohort.folder)
    loggers: dict[int, Breaker] = {}
    ok = False
    try:
        decided = job.sae.resolved(device_of(job.trainer.accelerator)).deciding()
        for seed in sorted({place.seed for place in places if not _is_there(cohort, job, place)}):
            shown: dict[str, Any] = {"seed": seed, "sae": {"family": job.sae.family, **decided}}
            name = f"{cohort.member(seed).name}-{job.sae.family}"
            if (logger := tracking.open(name, "sae", shown)) is not None:
                loggers[seed] = logger
        yield loggers
        ok = all(_is_there(cohort, job, place) for place in places)
    finally:
        for logger in loggers.values():
            logger.finish(0 if ok else 1)


def _memory(device: torch.device) -> int:
    """Bytes of memory on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
