"""What can be known to be wrong with a training request before its first job, when nothing is written yet."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from polymorph.cli import import_stage, sae_stage
from polymorph.cli.config import TrainConfig
from polymorph.errors import RequestError
from polymorph.models.activations import dimensions
from polymorph.pipeline.online_saes import check_online
from polymorph.saes.disk import KEYS, bytes_ahead
from polymorph.store import Cohort, Member, check_names, check_writable
from polymorph.tasks.registry import check_source, spelled_out
from polymorph.training.disk import Ahead, check_room, member_bytes, weight_bytes
from polymorph.training.numerics import device_of
from polymorph.training.run import donor_weights
from polymorph.training.schedule import checkpoint_steps


def check_jobs(jobs: Sequence[TrainConfig]) -> None:
    """Refuse, before the first job and without writing, whatever cannot be right (`RequestError`)."""
    seen: set[tuple[str, int]] = set()
    for job in jobs:
        if job.stage in _CHECKS:
            _CHECKS[job.stage](job)
    jobs = [job for job in jobs if job.stage not in _CHECKS]
    for job in jobs:
        device_of(job.trainer.accelerator)
        _check_saes(job)
        _check_cohort(job)
        for seed in job.seeds:
            if (where := (str(job.cohort.folder), seed)) in seen:
                raise RequestError(
                    f"seed={seed} is asked for twice in cohort {job.cohort.name}; once is enough"
                )
            seen.add(where)
    before: set[tuple[str, int]] = set()
    for job in jobs:  # a donor may come in the same stack or in an earlier job
        before |= {(str(job.cohort.folder), seed) for seed in job.seeds}
        _check_donor(job, {seed for folder, seed in before if folder == str(job.cohort.folder)})
    check_room([one for job in jobs for one in _ahead(job)])


def _check_text(job: TrainConfig) -> None:
    check_writable(job.cohort.folder)
    check_names(job.cohort.folder, task=job.task.name)
    check_source(job.task, job.cohort.folder)


_CHECKS = {"sae": sae_stage.check, "import": import_stage.check, "text": _check_text}
"""Stages that train no members."""


def _check_saes(job: TrainConfig) -> None:
    """What can be known of SAEs that come during or after the training, before it."""
    if job.stage == "model" and job.callbacks.cross_seed.sae == "none":
        return
    if job.callbacks.cross_seed.sae == "online":
        try:
            check_online(job.sae)
        except ValueError as error:
            raise RequestError(str(error)) from error
    d = dimensions(job.model.layer_norm, job.model.d_model)
    sae_stage.check_ahead(job, job.model.sites, d)
    if job.stage == "all":
        sae_stage.check_against_there(job)


def _check_cohort(job: TrainConfig) -> None:
    check_writable(job.cohort.folder)
    check_source(job.task, job.cohort.folder)
    try:
        cohort = Cohort.open(job.cohort.folder)
    except RequestError:
        return  # it is not there yet
    Cohort.create(job.cohort.folder, job.identity(), spelled_out)
    for seed in job.seeds:
        if (member := cohort.member(seed)).has_config():
            member.write_config(job.member_config(seed))


def _ahead(job: TrainConfig) -> Iterator[Ahead]:
    """What the members of a job will still write, and their SAEs if it is to train some."""
    folder = job.cohort.folder
    members = [Member(folder.absolute(), seed) for seed in job.seeds]
    weights = weight_bytes(job.model)
    sizes = [member_bytes(member, weights, job.trainer, job.checkpoints) for member in members]
    yield Ahead(folder, sum(sizes), "checkpoints.every, checkpoints.keep_states")
    unfinished = sum(size > 0 for size in sizes)
    d = dimensions(job.model.layer_norm, job.model.d_model)
    checkpoints = len(checkpoint_steps(job.checkpoints, job.trainer.max_steps))
    if job.stage == "all":
        yield Ahead(folder, bytes_ahead(job.sae, job.model.sites, d, unfinished, checkpoints), KEYS)
    if job.callbacks.cross_seed.enabled and (sae := job.callbacks.cross_seed.sae) != "none":
        live = replace(job.sae, at="all" if sae == "online" else "last", variants=["distinct"])
        yield Ahead(folder, bytes_ahead(live, job.model.sites, d, unfinished, checkpoints), KEYS)


def _check_donor(job: TrainConfig, asked: set[int]) -> None:
    if job.shared_io is None or job.shared_io.donor in asked:
        return
    try:
        cohort = Cohort.open(job.cohort.folder)
    except RequestError:
        cohort = Cohort(job.cohort.folder.absolute(), {})
    donor_weights(cohort, job.shared_io, job.model)
