"""A training request carried out: cohort, loggers and callbacks put together around `Training`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L

from polymorph.cli import import_stage, sae_stage
from polymorph.cli.config import TrainConfig
from polymorph.cli.ending import DONE, PREEMPTED, Ending, called, complain
from polymorph.cli.train_check import check_jobs
from polymorph.cli.train_logging import compare_whole, logging_of
from polymorph.cli.train_outcome import outcome
from polymorph.errors import RequestError, RunError
from polymorph.pipeline.callback import CrossSeed
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.online_saes import OnlineSAEs
from polymorph.progress import Progress, on_terminal
from polymorph.saes.trained import Variant
from polymorph.store import Cohort, Status
from polymorph.tasks.registry import prepared, spelled_out, task_of
from polymorph.tracking.loggers import Breaker
from polymorph.training.checkpoint import Checkpoint
from polymorph.training.grouping import is_final
from polymorph.training.interruption import interruptible
from polymorph.training.numerics import device_of
from polymorph.training.run import Training


def check(jobs: Sequence[TrainConfig]) -> None:
    """Refuse, before the first job and without writing, whatever cannot be right (`RequestError`)."""
    check_jobs(jobs)


def perform(config: TrainConfig, before: Sequence[Ending] = ()) -> Ending:
    """Carry out the stages of one request, unless an earlier job of this process was asked to stop."""
    stopped, refused = any(ending.stopped for ending in before), False
    if config.stage in ("text", "import"):
        refused = not _prepare(config)
    if config.stage in ("model", "all"):
        stopped = train_members(config, stopped)
    if config.stage == "sae" or (config.stage == "all" and not stopped):
        stopped = sae_stage.run(config, stopped)
    return Ending(config.cohort.folder, stopped, refused)


def _prepare(config: TrainConfig) -> bool:
    """Whether it could be done; what is not there afterwards is found missing by `outcome`."""
    try:
        if config.stage == "import":
            import_stage.run(config, progress=_bars(config))
        else:
            prepared(config.task, config.cohort.folder, progress=_bars(config))
    except (RequestError, RunError) as error:
        complain("train", error)
        return False
    return True


def _bars(config: TrainConfig) -> Progress:
    return on_terminal(config.trainer.progress)


def train_members(config: TrainConfig, stopped: bool = False) -> bool:
    """Train the members of one request; whether this process was asked to stop, then or before."""
    if stopped:
        print(f"seed {config.seed}: not started, since this process was asked to stop")
        return True
    try:
        task = prepared(config.task, config.cohort.folder, progress=_bars(config))
        uses = ("train", "evaluation", *(() if config.stage == "model" else ("sae",)))
        task.check(config.probe, uses, config.model.d_vocab)
    except (RequestError, RunError) as error:
        complain("train", error)
        return False
    cohort = Cohort.create(config.cohort.folder, config.identity(), spelled_out)
    for seed in config.seeds:
        cohort.member(seed).write_config(config.member_config(seed))
    unfinished = [seed for seed in config.seeds if not is_final(cohort.member(seed).status())]
    with logging_of(cohort, config, unfinished) as (loggers, summary):
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
    preempted = any(status and status.state == "preempted" for status in states.values())
    return _make_up_saes(cohort, config, states) or preempted


def _make_up_saes(cohort: Cohort, config: TrainConfig, states: Mapping[int, Status | None]) -> bool:
    """Train the SAEs at the end of completed members that the callback did not come to; whether it was stopped."""
    ended = {seed: status.step for seed, status in states.items() if status and status.state == "completed"}
    if (
        config.callbacks.cross_seed.enabled
        and (saes := _online_saes(_comparison(cohort, config), config)) is not None
    ):
        for seed, step in ended.items():
            with interruptible() as interruption:
                saes.train(step, [seed], interruption)
                if interruption.requested:
                    return True
    return False


def _callbacks(
    cohort: Cohort,
    config: TrainConfig,
    checkpoint: Checkpoint,
    loggers: dict[int, Breaker],
    summary: Breaker | None,
) -> list[L.Callback]:
    if not config.callbacks.cross_seed.enabled:
        return []
    comparison = _comparison(cohort, config)
    watch = config.callbacks.cross_seed
    saes = _online_saes(comparison, config)
    return [CrossSeed(comparison, checkpoint, loggers, summary, saes, watch.steering)]


def _comparison(cohort: Cohort, config: TrainConfig) -> Comparison:
    device = device_of(config.trainer.accelerator)
    return Comparison(cohort, task_of(cohort), config.model, config.probe, device)


def _online_saes(comparison: Comparison, config: TrainConfig) -> OnlineSAEs | None:
    variants: dict[str, Variant] = {"online": "online", "final": "distinct"}
    if (variant := variants.get(config.callbacks.cross_seed.sae)) is None:
        return None
    return OnlineSAEs(comparison, config.sae, variant)


def finish(jobs: Sequence[TrainConfig], endings: Sequence[Ending] = ()) -> int:
    """The exit status, once the whole comparison has its run; says where everything is."""
    status = outcome(jobs, endings)
    for folder, job in {job.cohort.folder: job for job in jobs}.items():
        trains = job.stage in ("model", "all")
        if trains and status != PREEMPTED and job.callbacks.cross_seed.enabled:
            compare_whole(folder, job)
        if (folder / "cohort.json").is_file():
            _bars(job).summary("what is where", summary(folder, status))
    return status


def summary(folder: Path, status: int) -> list[tuple[str, str]]:
    """Where the cohort and its runs are, and what comes next."""
    lines = [("cohort", str(folder))]
    if any((folder / "wandb").glob("*run-*")):
        lines.append(("W&B runs", f"wandb leet {folder / 'wandb'}"))
    again = {DONE: f"{called('analyze')} cohort={folder}", PREEMPTED: "the same command again goes on"}
    return [*lines, ("next", again.get(status, "the lines above say what failed"))]
