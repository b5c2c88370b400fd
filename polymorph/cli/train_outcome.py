"""How a training request ended, from what its members and their SAEs have recorded."""

from collections.abc import Sequence

from polymorph.cli import import_stage, sae_stage
from polymorph.cli.config import TrainConfig
from polymorph.cli.ending import DONE, FAILED, PREEMPTED, Ending
from polymorph.errors import RequestError, RunError
from polymorph.store import Cohort, Status
from polymorph.tasks.registry import task_identity


def outcome(jobs: Sequence[TrainConfig], endings: Sequence[Ending] = ()) -> int:
    """The exit status that the recorded states of all asked members amount to, and what ended in this process."""
    states = []
    for job in jobs:
        if job.stage in _OUTCOMES:
            states.append(_outcome(job, endings))
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


def _outcome(job: TrainConfig, endings: Sequence[Ending]) -> str:
    try:
        return _OUTCOMES[job.stage](job, endings)
    except (RequestError, RunError) as error:
        print(f"{job.stage}: {error}")
        return "failed"


def _text_outcome(job: TrainConfig, endings: Sequence[Ending]) -> str:
    task_identity(job.task, job.cohort.folder)
    return "completed"


_OUTCOMES = {
    "sae": sae_stage.outcome,
    "all": sae_stage.outcome,
    "import": import_stage.outcome,
    "text": _text_outcome,
}
_FAILURES = {"failed", "out_of_memory", "no_space", "diverged"}


def _ending(seed: int, status: Status | None) -> str:
    if status is None:
        return f"seed {seed}: never started"
    return f"seed {seed}: {status.state} at step {status.step}" + (
        f" ({status.reason})" if status.reason else ""
    )
