"""A folder of published folders, one a step: a member's checkpoints, or its states for resuming."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from polymorph.store import files, publication, safe_read
from polymorph.store.errors import CorruptError, reading
from polymorph.store.manifest import Manifest
from polymorph.store.names import step_name, step_of
from polymorph.store.publication import Published
from polymorph.store.streamed_files import read_manifest

Read = TypeVar("Read")


@dataclass(frozen=True)
class Shelf:
    """Every folder on it states its step and the facts of the shelf, so a misplaced copy is noticed."""

    folder: Path
    root: Path
    facts: Mapping[str, Any]

    def path(self, step: int) -> Path:
        return self.folder / step_name(step)

    def steps(self) -> list[int]:
        """The steps at which something looks published, in order; reading it verifies it."""
        if not safe_read.exists(self.folder):
            return []
        with reading(self.folder):
            numbers = [step_of(name) for name in files.names(self.folder)]
        return sorted(
            step for step in numbers if step is not None and publication.is_published(self.path(step))
        )

    def publish(self, step: int, contents: Mapping[str, bytes], facts: Mapping[str, Any]) -> Manifest:
        return publication.publish_again(self.path(step), contents, {**facts, **self._own(step)}, self.root)

    def read(self, step: int) -> Published:
        published = publication.read(self.path(step), self.root)
        for key, value in self._own(step).items():
            if (found := published.manifest.facts.get(key)) != value:
                raise CorruptError(f"{self.path(step)} was published as {key} {found!r}, not {value!r}")
        return published

    def manifest_at(self, step: int) -> Manifest:
        """What was published, by its manifest alone: the files are not looked at."""
        return read_manifest(self.path(step), self.root)

    def _own(self, step: int) -> dict[str, Any]:
        return {**self.facts, "step": step}

    def remove(self, step: int) -> None:
        publication.remove(self.path(step), self.root)

    def set_aside(self, step: int) -> None:
        publication.set_aside(self.path(step), self.root, publication.SUPERSEDED)

    def after(self, step: int) -> list[Manifest]:
        """The manifests of all that is readable after `step`."""
        later = [number for number in self.steps() if number > step and self._is_readable(number)]
        return [self.read(number).manifest for number in later]

    def newest(self, read: Callable[[int], Read]) -> tuple[Read | None, list[str]]:
        """What `read` makes of the newest step that it can read, and why it could not read the newer ones."""
        refused: list[str] = []
        for step in reversed(self.steps()):
            try:
                return read(step), refused
            except CorruptError as error:
                refused.append(str(error))
        return None, refused

    def prune(self, keep: int) -> list[int]:
        """Remove all that is older than the newest `keep` readable ones; the steps that were removed."""
        gone = self.older(keep)
        for step in gone:
            self.remove(step)
        return gone

    def older(self, keep: int) -> list[int]:
        """What `prune` would remove."""
        if keep < 1:
            raise ValueError(f"keep={keep} would leave nothing to resume from")
        # Read before anything is removed: what looks newest may be damaged, and then it replaces nothing.
        steps = self.steps()
        readable = (step for step in reversed(steps) if self._is_readable(step))
        kept = list(islice(readable, keep))
        return [step for step in steps if step < kept[-1]] if len(kept) == keep else []

    def _is_readable(self, step: int) -> bool:
        try:
            self.read(step)
        except CorruptError:
            return False
        return True
