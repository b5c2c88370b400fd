"""Texts to train on: read, told apart into splits, turned into tokens, and kept in the cohort's folder."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polymorph.progress import Progress
from polymorph.tasks.kind import Stated, TaskKind
from polymorph.tasks.text.config import TextConfig

if TYPE_CHECKING:
    from polymorph.tasks.text.text_task import Text


def _prepare(config: TextConfig, folder: Path, say: Callable[[str], None], progress: Progress) -> "Text":
    from polymorph.tasks.text.prepare import prepare

    return prepare(config, folder, say, progress)


def _open(stated: Stated, folder: Path) -> "Text":
    from polymorph.tasks.text.stored import stated_text

    return stated_text(stated, folder)


def _identity(config: TextConfig, folder: Path) -> dict[str, Any]:
    from polymorph.tasks.text.stored import text_identity

    return text_identity(config, folder)


def _check_source(config: TextConfig, folder: Path) -> None:
    from polymorph.tasks.text.sources import check_source

    check_source(config, folder)


TASK = TaskKind(
    name="text",
    config=TextConfig,
    heads=("tok",),
    prepare=_prepare,
    open=_open,
    identity=_identity,
    check_source=_check_source,
)
