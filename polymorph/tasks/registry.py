"""The tasks that there are, by name, and what makes two of them the same."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from polymorph.tasks.config import DyckConfig
from polymorph.tasks.text.config import TextConfig

TASKS: dict[str, type[Any]] = {"dyck3": DyckConfig, "text": TextConfig}


def task_identity(config: Any, folder: Path) -> dict[str, Any]:
    """What all members of a cohort share of their task; `RequestError` if it is not prepared yet."""
    if isinstance(config, DyckConfig):
        return _dyck_identity(config)
    from polymorph.tasks.text.stored import text_identity

    return text_identity(config, folder)


def _dyck_identity(config: DyckConfig) -> dict[str, Any]:
    """Its options, less `eval_max_length` where that is `max_length`.

    Cohorts that were made before there was this key were evaluated so, and say nothing of it: they stay the same
    task, to the last bit of every digest.
    """
    stated = asdict(config)
    if stated["eval_max_length"] == stated["max_length"]:
        del stated["eval_max_length"]
    return stated


def spelled_out(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A cohort's identity with what it leaves unsaid: the inverse of what `task_identity` leaves out."""
    task = identity["task"]
    if task.get("name") != "dyck3" or "max_length" not in task:
        return dict(identity)
    return {**identity, "task": {"eval_max_length": task["max_length"], **task}}
