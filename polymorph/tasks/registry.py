"""Every task: the folders beside this file, each with one value `TASK`; and a cohort's own task, opened."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TypeVar

from polymorph import tasks
from polymorph.errors import RequestError
from polymorph.progress import SILENT, Progress
from polymorph.store import Cohort, CorruptError
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.kind import TaskKind

if TYPE_CHECKING:
    from polymorph.tasks.task import Task

Made = TypeVar("Made")


def _found() -> Mapping[str, TaskKind]:
    folders = (f"{tasks.__name__}.{info.name}" for info in iter_modules(tasks.__path__) if info.ispkg)
    found: list[TaskKind] = [import_module(name).TASK for name in sorted(folders)]
    return {kind.name: kind for kind in found}


TASKS = _found()


def prepared(
    config: Any, folder: Path, say: Callable[[str], None] = print, progress: Progress = SILENT
) -> "Task":
    """The task of these options; what it needs is made in the cohort's folder if it is not there."""
    return _kind_of(config).prepare(config, folder, say, progress)


def task_identity(config: Any, folder: Path) -> dict[str, Any]:
    """What all members of a cohort share of their task; `RequestError` if it is not prepared yet."""
    return _kind_of(config).identity(config, folder)


def check_source(config: Any, folder: Path) -> None:
    """`RequestError` if the task could not be prepared, or what is prepared is of other options; writes nothing."""
    _kind_of(config).check_source(config, folder)


def _kind_of(config: Any) -> TaskKind:
    kind = TASKS.get(config.name)
    if kind is None or type(config) is not kind.config:
        raise RequestError(
            f"task.name={config.name}: not the name of the task that is chosen; leave it out, and choose one as "
            f"task=…: {', '.join(TASKS)}"
        )
    return kind


def heads_of(config: Any) -> tuple[str, ...]:
    """The heads of logits that the labels of this task are for."""
    return _kind_of(config).heads


def spelled_out(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A cohort's identity with what its task leaves unsaid."""
    stated = identity["task"]
    kind = TASKS.get(str(stated.get("name")))
    return {**identity, "task": stated if kind is None else kind.spelled_out(stated)}


def task_of(cohort: Cohort) -> "Task":
    """The task that the cohort states; `CorruptError` if that is none of ours."""
    stated = spelled_out(cohort.identity)["task"]
    kind = TASKS.get(str(stated.get("name")))
    if kind is None:
        raise CorruptError(
            f"{cohort.folder}: task {stated.get('name')!r} is none of {', '.join(TASKS)}; it is of a newer version, or "
            "of somebody's own"
        )
    return _read(lambda: kind.open(stated, cohort.folder), cohort)


def probe_of(cohort: Cohort) -> ProbeConfig:
    """The probe that the cohort states; `CorruptError` if there is no such one."""
    stated = {key: cohort.identity["probe"].get(key) for key in ("fit", "eval", "seed")}
    return _read(lambda: ProbeConfig(**stated), cohort)


def _read(make: Callable[[], Made], cohort: Cohort) -> Made:
    try:
        return make()
    except RequestError:  # of a text that is not prepared: the request can be mended, and nothing is damaged
        raise
    except (TypeError, ValueError) as error:
        raise CorruptError(f"{cohort.folder}: {error}") from error
