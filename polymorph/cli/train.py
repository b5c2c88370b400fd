"""A training request carried out: cohort, loggers and callbacks put together around `Training`."""

import contextlib
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L

from polymorph.cli import import_stage, sae_stage
from polymorph.cli.command import DONE, FAILED, PREEMPTED
from polymorph.cli.config import TrainConfig
from polymorph.code_version import code_version
from polymorph.errors import RequestError, RunError
from polymorph.models.activations import dimensions
from polymorph.pipeline.artifacts import checkpoint_artifact
from polymorph.pipeline.callback import CrossSeed
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.comparison_run import Kept, remember, write_comparison
from polymorph.pipeline.online_saes import OnlineSAEs, check_online
from polymorph.progress import Progress, on_terminal
from polymorph.saes.disk import KEYS, bytes_ahead
from polymorph.saes.trained import Variant
from polymorph.store import Cohort, CorruptError, Member, Status, check_names, check_writable
from polymorph.tasks.registry import check_source, prepared, spelled_out, task_identity, task_of
from polymorph.tracking.loggers import Breaker, Tracking
from polymorph.tracking.runs import RunLogger
from polymorph.training.checkpoint import Checkpoint
from polymorph.training.disk import Ahead, check_room, member_bytes, weight_bytes
from polymorph.training.grouping import is_final
from polymorph.training.interruption import interruptible
from polymorph.training.numerics import device_of
from polymorph.training.run import Training, donor_weights
from polymorph.training.schedule import checkpoint_steps


def check(jobs: Sequence[TrainConfig]) -> None:
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


def run(config: TrainConfig) -> None:
    """Carry out the stages of one request."""
    if config.stage in ("text", "import"):
        _prepare(config)
    if config.stage in ("model", "all"):
        train_members(config)
    if config.stage in ("sae", "all") and not _ended_early:
        sae_stage.run(config)


def _prepare(config: TrainConfig) -> None:
    """What is not there afterwards is found missing by `outcome`."""
    try:
        if config.stage == "import":
            import_stage.run(config, progress=_bars(config))
        else:
            prepared(config.task, config.cohort.folder, progress=_bars(config))
    except (RequestError, RunError) as error:
        _tell(error)
        import_stage.refuse(config)


def _bars(config: TrainConfig) -> Progress:
    return on_terminal(config.trainer.progress)


def _tell(error: Exception) -> None:
    print(f"train: {' '.join(str(error).split())}", file=sys.stderr)


def train_members(config: TrainConfig) -> dict[int, Status | None]:
    """Train the members of one request; the state of each afterwards."""
    if _ended_early:
        print(f"seed {config.seed}: not started, since this process was asked to stop")
        return dict.fromkeys(config.seeds)
    try:
        task = prepared(config.task, config.cohort.folder, progress=_bars(config))
        uses = ("train", "evaluation", *(() if config.stage == "model" else ("sae",)))
        task.check(config.probe, uses, config.model.d_vocab)
    except (RequestError, RunError) as error:
        _tell(error)
        return dict.fromkeys(config.seeds)
    cohort = Cohort.create(config.cohort.folder, config.identity(), spelled_out)
    for seed in config.seeds:
        cohort.member(seed).write_config(config.member_config(seed))
    unfinished = [seed for seed in config.seeds if not is_final(cohort.member(seed).status())]
    with _logging(cohort, config, unfinished) as (loggers, summary):
        training = Training(
            cohort=cohort,
            task=task,
            model=config.model,
            optimizer=config.optimizer,
            trainer=config.trainer,
            checkpoints=config.checkpoints,
            config_digest=config.member_digest,
            shared_io=config.shared_io,
            loggers=loggers,
            bars=_bars(config),
            callbacks=lambda checkpoint: _callbacks(cohort, config, checkpoint, loggers, summary),
        )
        states = training.run(config.seeds)
    _make_up_saes(cohort, config, states)
    _ended_early.extend(seed for seed, status in states.items() if status and status.state == "preempted")
    return states


def _make_up_saes(cohort: Cohort, config: TrainConfig, states: Mapping[int, Status | None]) -> None:
    """Train the SAEs at the end of completed members that the callback did not come to."""
    ended = {seed: status.step for seed, status in states.items() if status and status.state == "completed"}
    if config.callbacks.cross_seed.enabled and (saes := _online_saes(cohort, config)) is not None:
        for seed, step in ended.items():
            with interruptible() as interruption:
                saes.train(step, [seed], interruption)
                if interruption.requested:
                    _ended_early.append(seed)
                    return


def outcome(jobs: Sequence[TrainConfig]) -> int:
    """The exit status that the recorded states of all asked members amount to."""
    states = []
    for job in jobs:
        if job.stage in _OUTCOMES:
            states.append(_outcome(job))
        for seed in job.seeds if job.stage in ("model", "all") else []:
            try:
                status = Cohort.open(job.cohort.folder).member(seed).status()
            except (RequestError, RunError) as error:
                states.append("failed")
                print(f"seed {seed}: {error}")
                continue
            states.append("not started" if status is None else status.state)
            print(_ending(seed, status))
    if all(state == "completed" for state in states):
        return DONE
    return PREEMPTED if "preempted" in states and not set(states) & _FAILURES else FAILED


def _outcome(job: TrainConfig) -> str:
    try:
        return _OUTCOMES[job.stage](job)
    except (RequestError, RunError) as error:
        print(f"{job.stage}: {error}")
        return "failed"


def _text_outcome(job: TrainConfig) -> str:
    task_identity(job.task, job.cohort.folder)
    return "completed"


def _check_text(job: TrainConfig) -> None:
    check_writable(job.cohort.folder)
    check_names(job.cohort.folder, task=job.task.name)
    check_source(job.task, job.cohort.folder)


_CHECKS = {"sae": sae_stage.check, "import": import_stage.check, "text": _check_text}
"""Stages that train no members."""
_OUTCOMES = {
    "sae": sae_stage.outcome,
    "all": sae_stage.outcome,
    "import": import_stage.outcome,
    "text": _text_outcome,
}
_FAILURES = {"failed", "out_of_memory", "no_space", "diverged"}
_ended_early: list[int] = []  # seeds of this process that a signal has stopped; it starts no more jobs then


def _ending(seed: int, status: Status | None) -> str:
    if status is None:
        return f"seed {seed}: never started"
    return f"seed {seed}: {status.state} at step {status.step}" + (
        f" ({status.reason})" if status.reason else ""
    )


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


def _callbacks(
    cohort: Cohort,
    config: TrainConfig,
    checkpoint: Checkpoint,
    loggers: dict[int, Breaker],
    summary: Breaker | None,
) -> list[L.Callback]:
    if not config.callbacks.cross_seed.enabled:
        return []
    device = device_of(config.trainer.accelerator)
    comparison = Comparison(cohort, task_of(cohort), config.model, config.probe, device)
    watch = config.callbacks.cross_seed
    return [CrossSeed(comparison, checkpoint, loggers, summary, _online_saes(cohort, config), watch.steering)]


def _online_saes(cohort: Cohort, config: TrainConfig) -> OnlineSAEs | None:
    variants: dict[str, Variant] = {"online": "online", "final": "distinct"}
    if (variant := variants.get(config.callbacks.cross_seed.sae)) is None:
        return None
    return OnlineSAEs(Comparison.of(cohort, device_of(config.trainer.accelerator)), config.sae, variant)


@contextlib.contextmanager
def _logging(
    cohort: Cohort, config: TrainConfig, seeds: Sequence[int]
) -> Iterator[tuple[dict[int, Breaker], Breaker | None]]:
    """A run for every member, and one for the comparison if a stack makes it; ended in any case."""
    tracking = Tracking(config.logger, cohort.folder)
    loggers: dict[int, Breaker] = {}
    summary = None
    ok = False
    try:
        for seed in seeds:
            member = cohort.member(seed)
            shown = _shown(config, seed, resumed_from=max(member.states(), default=0))
            member.append_row({"kind": "start", "step": shown["resumed_from"], **shown})
            if (logger := tracking.open(member.name, "member", shown, _tags(config))) is not None:
                loggers[seed] = logger
        if len(seeds) > 1 and config.callbacks.cross_seed.enabled:
            summary = tracking.open("comparison", "comparison", _shown(config, None, 0), _tags(config))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
            yield loggers, summary
        ok = True
    finally:
        for seed, logger in loggers.items():
            logger.log_hyperparams({"checkpoint_digests": _digests(cohort, seed)})
            _name_best(logger, cohort, seed)
            if config.logger.artifacts:
                _keep_checkpoint(logger, cohort, seed)
            finished = ok and is_final(cohort.member(seed).status())
            logger.finish(0 if finished else 1)
        if summary is not None:
            told = ok and summary.inner is not None
            summary.finish(0 if ok else 1)
            if told:
                _remember_live(tracking, cohort, config, seeds)


def _name_best(logger: Breaker, cohort: Cohort, seed: int) -> None:
    """Which evaluation of the member was the best, once it has ended."""
    with contextlib.suppress(RunError, OSError):
        for row in [row for row in cohort.member(seed).rows() if row.get("kind") == "best"][-1:]:
            values = {f"best/{key}": row[key] for key in ("step", "least_accuracy", "loss")}
            logger.show(partial(RunLogger.log_summary, values=values))


def _keep_checkpoint(logger: Breaker, cohort: Cohort, seed: int) -> None:
    """The last one, as an artifact of the member's run."""
    with contextlib.suppress(RunError, OSError):
        for step in cohort.member(seed).steps()[-1:]:
            logger.show(partial(RunLogger.log_artifact, artifact=checkpoint_artifact(cohort, seed, step)))


def _tags(config: TrainConfig) -> list[str]:
    return [config.task.name, config.preset, config.cohort.kind]


def _remember_live(tracking: Tracking, cohort: Cohort, config: TrainConfig, seeds: Sequence[int]) -> None:
    """A stack of all members that began at the beginning has told everything while it trained."""
    with contextlib.suppress(RequestError, RunError, OSError):  # then it is told again, which is all
        members = cohort.members()
        beginnings = [row["resumed_from"] for m in members for row in m.rows() if row.get("kind") == "start"]
        if {m.seed for m in members} == set(seeds) and len(beginnings) == len(seeds) and not any(beginnings):
            remember(tracking, Kept(Comparison.of(cohort, device_of(config.trainer.accelerator))))


def finish(jobs: Sequence[TrainConfig]) -> int:
    """The exit status, once the whole comparison has its run; says where everything is."""
    status = outcome(jobs)
    for folder, job in {job.cohort.folder: job for job in jobs}.items():
        trains = job.stage in ("model", "all")
        if trains and status != PREEMPTED and job.callbacks.cross_seed.enabled:
            _compare_whole(folder, job)
        if (folder / "cohort.json").is_file():
            _bars(job).summary("what is where", summary(folder, status))
    return status


def summary(folder: Path, status: int) -> list[tuple[str, str]]:
    """Where the cohort and its runs are, and what comes next."""
    lines = [("cohort", str(folder))]
    if any((folder / "wandb").glob("*run-*")):
        lines.append(("W&B runs", f"wandb leet {folder / 'wandb'}"))
    again = {DONE: f"python analyze.py cohort={folder}", PREEMPTED: "the same command again goes on"}
    return [*lines, ("next", again.get(status, "the lines above say what failed"))]


def _compare_whole(folder: Path, job: TrainConfig) -> None:
    tracking = Tracking(job.logger, folder)
    if not tracking.wanted:
        return
    try:
        kept = Kept(Comparison.of(Cohort.open(folder), device_of(job.trainer.accelerator)))
        write_comparison(tracking, kept, _shown(job, None, 0), _tags(job))
    except (RequestError, RunError, OSError) as error:
        _tell(error)


def _digests(cohort: Cohort, seed: int) -> dict[str, str]:
    """The fingerprint of every checkpoint that can be read, by step."""
    member, found = cohort.member(seed), {}
    for step in member.steps():
        with contextlib.suppress(CorruptError):
            found[str(step)] = member.read_step(step).digest
    return found


def _shown(config: TrainConfig, seed: int | None, resumed_from: int) -> dict[str, Any]:
    """What a run states about itself: config, code, packages, and the digest that its checkpoints carry."""
    packages = {name: version(name) for name in ("torch", "lightning", "hydra-core", "wandb", "sae-lens")}
    own = {} if seed is None else {"seed": seed, "config_digest": config.member_digest(seed)}
    plain = asdict(config) | own
    return plain | {
        "code_version": code_version(),
        "packages": packages,
        "python": platform.python_version(),
        "resumed_from": resumed_from,
    }
