"""The one recorded state of a member."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from polymorph.store import durable, safe_read
from polymorph.store.canonical_json import LARGEST
from polymorph.store.checksummed_json import seal, unseal
from polymorph.store.errors import CorruptError, writing

StateName = Literal["running", "completed", "diverged", "preempted", "out_of_memory", "no_space", "failed"]
STATES = frozenset(get_args(StateName))


@dataclass(frozen=True)
class Status:
    """Where a member stands."""

    state: StateName
    step: int = 0
    """The last step that the member took."""
    reason: str = ""
    """Why, in one line, where the state alone does not say it."""
    stack: tuple[int, ...] = ()
    """The seeds that were trained together, this one included."""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state={self.state!r} is none of {', '.join(get_args(StateName))}")
        if type(self.step) is not int or self.step < 0 or type(self.reason) is not str:
            raise ValueError(f"step={self.step!r}, reason={self.reason!r} are not a step and a text")
        if type(self.stack) is not tuple or any(type(seed) is not int or seed < 0 for seed in self.stack):
            raise ValueError(f"stack={self.stack!r} is not a tuple of seeds")


def write_status(path: Path, status: Status) -> None:
    """A reader sees the old state or this one at every moment."""
    with writing(path):
        durable.replace_file(path, seal(asdict(status)))


def read_status(path: Path) -> Status | None:
    """The recorded state, None if none was recorded yet; `CorruptError` if it is not as it was written."""
    if not safe_read.exists(path):
        return None
    content = unseal(safe_read.read_whole(path, LARGEST), path)
    fields: dict[str, Any] = {name: content.get(name) for name in ("state", "step", "reason")}
    stack = content.get("stack")
    try:
        return Status(**fields, stack=tuple(stack) if isinstance(stack, list) else ())
    except (ValueError, TypeError) as error:
        raise CorruptError(f"{path}: {error}") from error
