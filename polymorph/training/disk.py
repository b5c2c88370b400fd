"""What a training will write, before it starts, held against the room that the disk has."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from polymorph.errors import RequestError
from polymorph.models.architecture import Trainable
from polymorph.store import CorruptError, Member
from polymorph.training.config import CheckpointsConfig, TrainerConfig
from polymorph.training.grouping import is_final
from polymorph.training.schedule import checkpoint_steps

STATE = 3
"""A state holds the weights and both of AdamW's moments."""
BEST = 3
"""Weights of best evaluations at once: the newest, the one before it until that is removed, and the checkpoint."""
FOLDER = 1 << 13
"""Bytes of a published folder beside its weights: the manifest, and what is lost to whole blocks."""
ROW = 1000
"""Bytes of one row of the member's log, and of what a logger keeps of it."""
UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Ahead:
    """Bytes that a request will still write below a folder, and the keys of the configuration that change that."""

    folder: Path
    size: int
    keys: str


def weight_bytes(model: Trainable) -> int:
    """Of the parameters of one member; none is made."""
    with torch.device("meta"):
        return sum(p.numel() * p.element_size() for p in model.untrained(0).parameters())


def member_bytes(member: Member, weights: int, trainer: TrainerConfig, checkpoints: CheckpointsConfig) -> int:
    """What one member will still write, at most: 0 once it has a final state.

    While a state is published the oldest is still there, so there is one more than are kept. The rows of comparisons
    are not counted. One that cannot be read counts as not begun: that it is damaged is said where it is trained, and
    stops nobody else.
    """
    try:
        done, there, states, best = _found(member)
    except CorruptError:
        done, there, states, best = False, set(), 0, 0
    if done:
        return 0
    steps = sum(step not in there for step in checkpoint_steps(checkpoints, trainer.max_steps))
    states = max(0, checkpoints.keep_states + 1 - states)
    best = max(0, BEST - best)
    rows = trainer.max_steps // trainer.log_every + trainer.max_steps // trainer.eval_every
    return weights * (steps + STATE * states + best) + FOLDER * (steps + states + best) + ROW * rows


def _found(member: Member) -> tuple[bool, set[int], int, int]:
    """Whether it has ended, the steps of its checkpoints, and how many states and best evaluations there are."""
    ended = is_final(member.status())
    return ended, set(member.steps()), len(member.states()), len(member.best_steps())


def free_bytes(folder: Path) -> int:
    """What can be written where the folder is, or will be."""
    return shutil.disk_usage(_nearest(folder)).free


def check_room(ahead: Sequence[Ahead]) -> None:
    """`RequestError` if a disk has no room for all that will be written to it."""
    disks: dict[int, list[Ahead]] = {}
    for one in ahead:
        disks.setdefault(_nearest(one.folder).stat().st_dev, []).append(one)
    for own in disks.values():
        needed, folder = sum(one.size for one in own), own[0].folder
        if needed > (free := free_bytes(folder)):
            keys = " or ".join(dict.fromkeys(one.keys for one in own if one.size))
            raise RequestError(
                f"cohort.root={folder.parent}: about {readable(needed)} will be written, and {readable(free)} "
                f"are free there; change {keys}, or give another cohort.root"
            )


def _nearest(folder: Path) -> Path:
    """The folder itself, or what there is of it."""
    path = folder.absolute()
    while not path.exists():
        path = path.parent
    return path


def readable(size: float) -> str:
    """Three digits and a unit, of 1,000 each: `1.25 GB`."""
    for unit in UNITS[:-1]:
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} {UNITS[-1]}"
