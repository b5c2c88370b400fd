"""Bounded-depth Dyck-3: brackets of three families, generated as a function of (seed, step)."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polymorph.progress import Progress
from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.kind import Stated, TaskKind

if TYPE_CHECKING:
    from polymorph.tasks.dyck.task import Dyck


def _prepare(config: DyckConfig, folder: Path, say: Callable[[str], None], progress: Progress) -> "Dyck":
    from polymorph.tasks.dyck.task import Dyck

    return Dyck(config)


def _open(stated: Stated, folder: Path) -> "Dyck":
    from polymorph.tasks.dyck.task import Dyck

    return Dyck(DyckConfig(**stated))


def _identity(config: DyckConfig, folder: Path) -> dict[str, Any]:
    """Its options, less `eval_max_length` where that is `max_length`.

    Cohorts that were made before there was this key were evaluated so, and say nothing of it: they stay the same
    task, to the last bit of every digest.
    """
    stated = asdict(config)
    if stated["eval_max_length"] == stated["max_length"]:
        del stated["eval_max_length"]
    return stated


def _spelled_out(stated: Stated) -> Stated:
    """The inverse of what the identity leaves out."""
    return {"eval_max_length": stated["max_length"], **stated} if "max_length" in stated else stated


TASK = TaskKind(
    name="dyck3",
    config=DyckConfig,
    heads=("tok", "depth", "valid"),
    prepare=_prepare,
    open=_open,
    identity=_identity,
    spelled_out=_spelled_out,
)
