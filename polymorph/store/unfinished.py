"""States of trainings that several members share, such as a stack of SAEs: kept until the training is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polymorph.store import files, publication, safe_read
from polymorph.store.checkpoints import STATE, State, read_state
from polymorph.store.errors import reading
from polymorph.store.leftovers import sweep
from polymorph.store.manifest import Manifest
from polymorph.store.names import NAME, check_name
from polymorph.store.step_folders import Shelf
from polymorph.store.tensors import to_bytes

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2
"""States of a training: the newest may be damaged."""


@dataclass(frozen=True)
class Unfinished:
    """The states under one name, below `root`."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root / "unfinished" / check_name(self.name, "name")

    @property
    def _shelf(self) -> Shelf:
        return Shelf(self.folder, self.root, {"kind": "unfinished", "name": self.name})

    def publish(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Manifest:
        """Keep what resuming after `step` needs, and remove all states but this and the one before it."""
        manifest = self._shelf.publish(step, {STATE: to_bytes(tensors)}, facts)
        self._shelf.prune(KEPT)
        return manifest

    def newest(self) -> tuple[State | None, list[str]]:
        """The newest state that can be read, and why each newer one cannot."""
        return self._shelf.newest(lambda step: read_state(self._shelf, step))

    def remove(self) -> None:
        """Remove all states; gone already is benign."""
        for step in self._shelf.steps():
            self._shelf.remove(step)
        publication.remove(self.folder, self.root)

    def sweep(self) -> list[str]:
        """Remove what dead processes left half done; the names removed."""
        safe_read.check_inside(self.folder, self.root)
        return sweep(self.folder)


def unfinished_names(root: Path) -> list[str]:
    """The names under which there are states, in order."""
    folder = root / "unfinished"
    safe_read.check_inside(folder, root)
    if not safe_read.exists(folder):
        return []
    with reading(folder):
        return sorted(name for name in files.names(folder) if NAME.fullmatch(name))
