"""What a task brings so that requests, cohorts and `--help` know it: the one value `TASK` of its folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polymorph.progress import Progress

if TYPE_CHECKING:
    from polymorph.tasks.task import Task

Stated = Mapping[str, Any]
"""What a cohort states of its task, as plain data."""


def _needs_nothing(config: Any, folder: Path) -> None:
    """Nothing outside the request decides whether the task can be prepared."""


@dataclass(frozen=True)
class TaskKind:
    """A task before it is opened. Its folder is imported for every `--help`: torch is imported inside the functions.

    `folder` is always the cohort's.
    """

    name: str
    """The name under which a cohort states the task; `task=<name>` on the command line."""
    config: type[Any]
    """The dataclass of its options, with a field `name`."""
    heads: tuple[str, ...]
    """The heads of logits that its labels are for; a model that lacks one cannot learn it."""
    prepare: "Callable[[Any, Path, Callable[[str], None], Progress], Task]"
    """The task of these options; what it needs is made in the folder if it is not there."""
    open: "Callable[[Stated, Path], Task]"
    """The task of a cohort that is there; `ValueError` or `TypeError` for what it cannot have stated."""
    identity: Callable[[Any, Path], dict[str, Any]]
    """What all members of a cohort share of the task; `RequestError` if it is not prepared yet."""
    spelled_out: Callable[[Stated], Stated] = dict
    """An identity with what it leaves unsaid."""
    check_source: Callable[[Any, Path], None] = _needs_nothing
    """`RequestError` if the task could not be prepared, or what is prepared is of other options; writes nothing."""
