"""A cohort's task and architecture, by the names that its folder states; how a task is added is written here.

A task has a dataclass for its options, `prepare` makes what it needs in the cohort's folder, and `opened` gives
the task of a cohort that is there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from polymorph.errors import RequestError
from polymorph.models.architecture import Architecture
from polymorph.models.registry import architecture_of
from polymorph.progress import SILENT, Progress
from polymorph.store import Cohort, CorruptError
from polymorph.store.differences import side_by_side
from polymorph.tasks.config import DyckConfig, ProbeConfig
from polymorph.tasks.dyck import Dyck
from polymorph.tasks.registry import spelled_out
from polymorph.tasks.task import Task
from polymorph.tasks.text.config import TRAINED, TextConfig, TextShares
from polymorph.tasks.text.prepare import prepare
from polymorph.tasks.text.sources import opened
from polymorph.tasks.text.stored import open_text, text_config, text_identity, text_tokenizer
from polymorph.tasks.text.tokenizer import loaded


def prepared(
    config: Any, folder: Path, say: Callable[[str], None] = print, progress: Progress = SILENT
) -> Task:
    """The task of these options; what it needs is made in the cohort's folder if it is not there."""
    return Dyck(config) if isinstance(config, DyckConfig) else prepare(config, folder, say, progress)


def task_of(cohort: Cohort) -> Task:
    """The task that the cohort states; `CorruptError` if that is none of ours."""
    stated = spelled_out(cohort.identity)["task"]
    return _text(stated, cohort) if stated.get("name") == "text" else Dyck(_made(DyckConfig, stated, cohort))


def _text(stated: Mapping[str, Any], cohort: Cohort) -> Task:
    """The text that is in the folder, if it is the one that the cohort states."""
    there = text_config(cohort.folder)
    own = {key: stated[key] for key in ("context", "windows") if key in stated}
    config = _made(TextConfig, {**there, "shares": TextShares(**there["shares"]), **own}, cohort)
    if (found := text_identity(config, cohort.folder)) != dict(stated):
        raise CorruptError(
            f"{cohort.folder} is a cohort of another text than it holds: {side_by_side(stated, found)}"
        )
    return open_text(config, cohort.folder)


def check_there(folder: Path, task: str, architecture_name: str | None = None) -> None:
    """`RequestError` if there is a cohort already that learns another task, or is of another architecture."""
    try:
        there = Cohort.open(folder)
    except RequestError:
        return
    for part, wanted in (("task", task), ("architecture", architecture_name)):
        if wanted is not None and (found := there.identity[part].get("name")) != wanted:
            raise RequestError(
                f"{folder} is a cohort whose {part} is {found}, not {wanted}; give another cohort.name"
            )


def check_source(config: Any, folder: Path) -> None:
    """`RequestError` if the task could not be prepared, or what is prepared is of other options; writes nothing."""
    if not isinstance(config, TextConfig):
        return
    if text_tokenizer(folder) is not None:
        text_identity(config, folder)
    elif config.source != "hub":  # the hub is asked once, when it is read
        opened(config)
    if config.tokenizer not in (TRAINED, "model") and text_tokenizer(folder) is None:
        loaded(config.tokenizer)


def architecture(cohort: Cohort) -> Architecture:
    """The architecture that the cohort states; `CorruptError` if that is none of ours."""
    try:
        return architecture_of(cohort.identity["architecture"])
    except (TypeError, ValueError) as error:
        raise CorruptError(f"{cohort.folder}: {error}") from error


def probe_of(cohort: Cohort) -> ProbeConfig:
    stated = {key: cohort.identity["probe"].get(key) for key in ("fit", "eval", "seed")}
    return _made(ProbeConfig, stated, cohort)


def _made(kind: type[Any], stated: Mapping[str, Any], cohort: Cohort) -> Any:
    try:
        return kind(**stated)
    except (TypeError, ValueError) as error:
        raise CorruptError(f"{cohort.folder}: {error}") from error
