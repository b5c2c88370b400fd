"""The runs of a training request: one for every member, and one for the comparison."""

import contextlib
import platform
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from polymorph.cli.config import TrainConfig
from polymorph.cli.ending import complain
from polymorph.cli.extras import installed_version
from polymorph.code_version import code_version
from polymorph.errors import RequestError, RunError
from polymorph.pipeline.artifacts import checkpoint_artifact
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.comparison_rows import ComparisonRows, remember, write_comparison
from polymorph.store import Cohort, CorruptError
from polymorph.tracking.loggers import Breaker, Tracking
from polymorph.tracking.runs import RunLogger
from polymorph.training.grouping import is_final
from polymorph.training.numerics import device_of


@contextlib.contextmanager
def logging_of(
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
                _remember_live(tracking, cohort, seeds)


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


def _remember_live(tracking: Tracking, cohort: Cohort, seeds: Sequence[int]) -> None:
    """A stack of all members that began at the beginning has told everything while it trained."""
    with contextlib.suppress(RequestError, RunError, OSError):  # then it is told again, which is all
        members = cohort.members()
        beginnings = [row["resumed_from"] for m in members for row in m.rows() if row.get("kind") == "start"]
        if {m.seed for m in members} == set(seeds) and len(beginnings) == len(seeds) and not any(beginnings):
            remember(tracking, cohort)


def compare_whole(folder: Path, job: TrainConfig) -> None:
    tracking = Tracking(job.logger, folder)
    if not tracking.wanted:
        return
    try:
        kept = ComparisonRows(Comparison.of(Cohort.open(folder), device_of(job.trainer.accelerator)))
        write_comparison(tracking, kept, _shown(job, None, 0), _tags(job))
    except (RequestError, RunError, OSError) as error:
        complain("train", error)


def _digests(cohort: Cohort, seed: int) -> dict[str, str]:
    """The fingerprint of every checkpoint that can be read, by step."""
    member, found = cohort.member(seed), {}
    for step in member.steps():
        with contextlib.suppress(CorruptError):
            found[str(step)] = member.read_step(step).digest
    return found


def _shown(config: TrainConfig, seed: int | None, resumed_from: int) -> dict[str, Any]:
    """What a run states about itself: config, code, packages, and the digest that its checkpoints carry."""
    named = ("torch", "lightning", "hydra-core", "wandb", "sae-lens")
    packages = {name: found for name in named if (found := installed_version(name)) is not None}
    own = {} if seed is None else {"seed": seed, "config_digest": config.member_digest(seed)}
    plain = asdict(config) | own
    return plain | {
        "code_version": code_version(),
        "packages": packages,
        "python": platform.python_version(),
        "resumed_from": resumed_from,
    }
