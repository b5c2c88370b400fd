"""One seed of a cohort on disk: its config, its state, its checkpoints, its SAEs and its log.

Reading changes nothing. Below the cohort's folder no symbolic link is followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polymorph.errors import RequestError
from polymorph.store import durable, member_log, safe_read
from polymorph.store.canonical_json import LARGEST, canonical, parse_mapping, plain, readable
from polymorph.store.checkpoints import (
    STATE,
    Checkpoint,
    State,
    checkpoint_files,
    read_checkpoint,
    read_state,
    reference_files,
)
from polymorph.store.differences import side_by_side
from polymorph.store.errors import CorruptError, writing
from polymorph.store.leftovers import sweep
from polymorph.store.manifest import Manifest
from polymorph.store.names import seed_name
from polymorph.store.publication import Published
from polymorph.store.sae_folders import SAEShelf
from polymorph.store.status import Status, read_status, write_status
from polymorph.store.step_folders import Shelf
from polymorph.store.tensors import to_bytes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Member:
    """The member of the cohort in folder `cohort` that has this seed; it need not be there yet."""

    cohort: Path
    seed: int

    @property
    def name(self) -> str:
        return seed_name(self.seed)

    @property
    def folder(self) -> Path:
        return self.cohort / "members" / self.name

    def _path(self, name: str) -> Path:
        safe_read.check_inside(self.folder / name, self.cohort)
        return self.folder / name

    def _path_to_write(self, name: str) -> Path:
        path = self._path(name)
        with writing(path):
            durable.make_folders(self.folder, self.cohort)
        return path

    # The config, as plain data.

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Record the config; the same again is benign, another one is refused (`RequestError`)."""
        try:
            ours = plain(config)
        except ValueError as error:
            raise RequestError(f"the config of {self.name} is not plain data: {error}") from error
        if not self.has_config() and self._create_config(ours):
            return
        if canonical(there := self.config()) != canonical(ours):
            raise RequestError(
                f"{self.folder} was trained with another config: {side_by_side(there, ours)}; "
                "give the same values, or another cohort.name"
            )

    def _create_config(self, config: Mapping[str, Any]) -> bool:
        path = self._path_to_write("config.json")
        with writing(path):
            return durable.create_file(path, readable(config))

    def has_config(self) -> bool:
        return safe_read.exists(self._path("config.json"))

    def config(self) -> dict[str, Any]:
        """As it was written, nothing interpolated; `CorruptError` if it is missing or damaged."""
        path = self._path("config.json")
        return parse_mapping(safe_read.read_whole(path, LARGEST), path)

    # The one recorded state.

    def status(self) -> Status | None:
        return read_status(self._path("status.json"))

    def set_status(self, status: Status) -> None:
        write_status(self._path_to_write("status.json"), status)

    # Checkpoints, which stay.

    @property
    def _steps(self) -> Shelf:
        return Shelf(self.folder / "steps", self.cohort, {"seed": self.seed, "kind": "step"})

    def steps(self) -> list[int]:
        """The steps with a checkpoint that looks whole, in order; reading it verifies it."""
        return self._steps.steps()

    def publish_step(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        buffers: Mapping[str, Tensor] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Manifest:
        """Publish a checkpoint; equal content again is benign, other content raises `ConflictError`.

        One that is there and damaged is set aside first. `seed`, `step` and `kind` are added to the facts.
        `files` stand beside the weights.
        """
        return self._steps.publish(step, checkpoint_files(weights, buffers, files), facts)

    def publish_reference(
        self, step: int, reference: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> Manifest:
        """As `publish_step`, for weights that stay where they are: `reference` says where, and their SHA-256."""
        return self._steps.publish(step, reference_files(reference), facts)

    def read_step(self, step: int) -> Checkpoint:
        """The checkpoint, every digest verified; `CorruptError` if it is not there whole."""
        return read_checkpoint(self._steps, step)

    def step_digest(self, step: int) -> str:
        """The digest of a checkpoint, by its manifest alone; `CorruptError` without one."""
        return self._steps.manifest_at(step).digest

    def newest_readable_step(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that can be read, and why each newer one cannot."""
        return self._steps.newest(self.read_step)

    # States for resuming, of which the last few are kept.

    @property
    def _states(self) -> Shelf:
        return Shelf(self.folder / "state", self.cohort, {"seed": self.seed, "kind": "state"})

    def states(self) -> list[int]:
        return self._states.steps()

    def publish_state(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Manifest:
        """As `publish_step`, for what resuming after `step` needs."""
        return self._states.publish(step, {STATE: to_bytes(tensors)}, facts)

    def read_state(self, step: int) -> State:
        return read_state(self._states, step)

    def newest_readable_state(self) -> tuple[State | None, list[str]]:
        """The newest state that can be read, and why each newer one cannot."""
        return self._states.newest(self.read_state)

    def prune_states(self, keep: int = 2) -> list[int]:
        """Remove, each whole, the states older than the newest `keep` readable ones; the steps removed."""
        return self._states.prune(keep)

    def older_states(self, keep: int = 2) -> list[int]:
        """What `prune_states` would remove."""
        return self._states.older(keep)

    def state_facts(self, step: int) -> Mapping[str, Any]:
        """What was published with a state, by its manifest alone; `CorruptError` if that cannot be read."""
        return self._states.manifest_at(step).facts

    # The weights of the best evaluation so far.

    @property
    def _best(self) -> Shelf:
        return Shelf(self.folder / "best", self.cohort, {"seed": self.seed, "kind": "best"})

    def best_steps(self) -> list[int]:
        """The steps whose evaluation was the best when it was made, of those that are still kept, in order."""
        return self._best.steps()

    def best_step(self) -> int | None:
        """The step of the best evaluation so far, None before any; a completed member has a checkpoint at it.

        Where the shelf is empty, as in a copy of a completed member, its log says which.
        """
        if kept := self.best_steps():
            return max(kept)
        return max((row["step"] for row in self.rows() if row.get("kind") == "best"), default=None)

    def read_best(self, step: int | None = None) -> Checkpoint:
        """The weights of the best evaluation, or of an earlier best that is still kept; `CorruptError` if not there."""
        if step is None and (step := self.best_step()) is None:
            raise CorruptError(f"{self.folder} holds no best evaluation")
        return read_checkpoint(self._best if step in self.best_steps() else self._steps, step)

    def publish_best(
        self, step: int, weights: Mapping[str, Tensor], facts: Mapping[str, Any], files: Mapping[str, bytes]
    ) -> Manifest:
        """As `publish_step`, for the weights of an evaluation that was better than all before."""
        return self._best.publish(step, checkpoint_files(weights, None, files), facts)

    def remove_best(self, step: int) -> None:
        """Remove it whole."""
        self._best.remove(step)

    # All of these.

    def published_after(self, step: int) -> list[Manifest]:
        """The manifests of all readable checkpoints, states and best evaluations after `step`."""
        return [*self._steps.after(step), *self._states.after(step), *self._best.after(step)]

    def set_aside_after(self, step: int) -> list[int]:
        """Take the checkpoints after `step` and their SAEs out of readers' sight; the steps.

        States and best evaluations after it are removed.
        """
        gone = [later for later in self.steps() if later > step]
        for later in gone:
            self._steps.set_aside(later)
        for place in self.saes():
            if place[0] > step:
                self._saes.set_aside(*place)
        for shelf in (self._states, self._best):
            for later in shelf.steps():
                if later > step:
                    shelf.remove(later)
        return gone

    # SAEs, as SAELens writes them.

    @property
    def _saes(self) -> SAEShelf:
        return SAEShelf(self.folder / "saes", self.cohort, self.seed)

    def saes(self) -> list[tuple[int, str, str]]:
        """(step, site, name) of every SAE that looks whole, in order; reading it verifies it."""
        return self._saes.places()

    def sae_path(self, step: int, site: str, name: str) -> Path:
        """The folder of this SAE, there or not; `RequestError` if the site or the name is no name."""
        return self._saes.path(step, site, name)

    def has_sae(self, step: int, site: str, name: str) -> bool:
        """Whether there is something in its place, whole or not."""
        return self._saes.holds(step, site, name)

    def publish_sae(
        self, step: int, site: str, name: str, contents: Mapping[str, bytes], facts: Mapping[str, Any]
    ) -> Manifest:
        """As `publish_step`, for the files of an SAE; `site` and `name` are added to the facts as well."""
        return self._saes.publish(step, site, name, contents, facts)

    def read_sae(self, step: int, site: str, name: str) -> Published:
        """Its files and facts, every digest verified; `CorruptError` if it is not there whole."""
        return self._saes.read(step, site, name)

    # The log.

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Append a row to the member's log; a float that is not finite is kept as null."""
        member_log.append_row(self._path_to_write("rows.jsonl"), row)

    def rows(self) -> list[dict[str, Any]]:
        """Every row that was written whole, in order, repetitions included."""
        return member_log.read_rows(self._path("rows.jsonl"))

    def sweep(self) -> list[str]:
        """Remove what dead processes left half done; call it before writing. The names removed."""
        safe_read.check_inside(self.folder, self.cohort)
        return sweep(self.folder, depth=3)  # saes/step/site
