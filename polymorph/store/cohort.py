"""A cohort on disk: members of one architecture on one task, compared on one probe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymorph.errors import RequestError, RunError
from polymorph.store import durable, files, publication, safe_read
from polymorph.store.canonical_json import LARGEST, digest, plain
from polymorph.store.checksummed_json import seal, unseal
from polymorph.store.differences import side_by_side
from polymorph.store.errors import CorruptError, reading, writing
from polymorph.store.leftovers import leftovers, sweep
from polymorph.store.member import Member
from polymorph.store.names import check_name, seed_name, seed_of
from polymorph.store.pair_rows import Pairs
from polymorph.store.unfinished import Unfinished, unfinished_names

COHORT = "cohort.json"
PARTS = ("architecture", "task", "probe")

DEEPEST = 5  # members/seed/saes/step/site


@dataclass(frozen=True)
class Cohort:
    """`identity` has the keys `architecture`, `task` and `probe`: what all members share, as plain data."""

    folder: Path
    identity: Mapping[str, Any]

    @classmethod
    def create(
        cls,
        folder: Path | str,
        identity: Mapping[str, Any],
        spelled_out: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> "Cohort":
        """Make the cohort, or open the one that is there; `RequestError` if that one has another identity.

        `spelled_out` adds what an identity leaves unsaid, so that the message shows two values side by side.
        """
        path = _checked(folder)
        ours = _plain_identity(identity)
        if not safe_read.exists(path / COHORT) and _create(path, ours):
            return cls(path, ours)
        there = cls.open(path)
        for part in PARTS:
            if digest(there.identity[part]) != digest(ours[part]):
                raise _other(path, part, spelled_out(there.identity)[part], spelled_out(ours)[part])
        return there

    @classmethod
    def open(cls, folder: Path | str) -> "Cohort":
        """The cohort that is there; `RequestError` if none is, `CorruptError` if it is damaged."""
        path = _checked(folder)
        if not safe_read.exists(path / COHORT):
            raise RequestError(f"cohort={path} is not a cohort: it holds no {COHORT}")
        return cls(path, _read_identity(path / COHORT))

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def fingerprints(self) -> dict[str, str]:
        """The SHA-256 of each part of the identity."""
        return {part: digest(self.identity[part]) for part in PARTS}

    @property
    def pairs(self) -> Pairs:
        return Pairs(self.folder)

    def member(self, seed: int) -> Member:
        """The member of this seed; it need not be there yet."""
        return Member(self.folder, seed)

    def members(self) -> list[Member]:
        """The members that are there, by seed, whatever their state."""
        folder = self.folder / "members"
        if not safe_read.exists(folder):
            return []
        safe_read.check_inside(folder, self.folder)
        with reading(folder):
            seeds = [seed_of(name) for name in files.names(folder)]
        return [self.member(seed) for seed in sorted(seed for seed in seeds if seed is not None)]

    def publish_ported(
        self,
        source: int,
        target: int,
        site: str,
        name: str,
        contents: Mapping[str, bytes],
        facts: Mapping[str, Any],
    ) -> Path:
        """Publish a SAE of one member that was made to work on another, as its SAEs are published; its folder."""
        folder = self.folder / "ported" / f"{seed_name(source)}--{seed_name(target)}"
        path = folder / check_name(site, "site") / check_name(name, "name")
        publication.publish_again(path, contents, facts, self.folder)
        return path

    def unfinished(self, name: str) -> Unfinished:
        """The states under this name of a training that members share; there need not be any."""
        return Unfinished(self.folder, name)

    def unfinished_names(self) -> list[str]:
        return unfinished_names(self.folder)

    def sweep(self) -> list[str]:
        """Remove what dead processes left half done anywhere in the cohort; the names removed."""
        return sweep(self.folder, DEEPEST)

    def leftovers(self) -> list[Path]:
        """What `sweep` would remove."""
        return leftovers(self.folder, DEEPEST)


def check_names(folder: Path | str, **wanted: str) -> None:
    """`RequestError` if there is a cohort already whose `task` or `architecture` has another name."""
    try:
        there = Cohort.open(folder)
    except RequestError:
        return
    for part, name in wanted.items():
        if (found := there.identity[part].get("name")) != name:
            raise RequestError(
                f"{folder} is a cohort whose {part} is {found}, not {name}; give another cohort.name"
            )


def check_writable(folder: Path | str, key: str = "cohort.root") -> None:
    """Raise `RequestError` unless files can be made there, or where it would be; nothing stays behind."""
    path = nearest = _absolute(folder)
    try:
        while not safe_read.exists(nearest):
            nearest = nearest.parent
        with writing(nearest):
            durable.drop(durable.write_draft(nearest, b"\n"))
    except RunError as error:
        raise RequestError(f"{key}: {path} cannot be written: {error}") from error


def _checked(folder: Path | str) -> Path:
    path = _absolute(folder)
    check_name(path.name)
    return path


def _absolute(folder: Path | str) -> Path:
    with reading(Path(folder)):  # the folder that one is in may have been removed
        return files.absolute(Path(folder))


def _plain_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    if set(identity) != set(PARTS):
        raise ValueError(f"an identity has the keys {', '.join(PARTS)}, not {', '.join(sorted(identity))}")
    return {part: plain(identity[part]) for part in PARTS}


def _create(path: Path, identity: Mapping[str, Any]) -> bool:
    fingerprints = {part: digest(identity[part]) for part in PARTS}
    with writing(path / COHORT):
        durable.make_parents(path)
        return durable.create_file(path / COHORT, seal({**identity, "fingerprints": fingerprints}))


def _read_identity(path: Path) -> dict[str, Any]:
    content = unseal(safe_read.read_whole(path, LARGEST), path)
    for part in PARTS:
        if part not in content:
            raise CorruptError(f"{path} states no {part}")
    return {part: content[part] for part in PARTS}


def _other(path: Path, part: str, there: Any, here: Any) -> RequestError:
    return RequestError(
        f"{path} is a cohort of another {part}: {side_by_side({part: there}, {part: here})}; "
        "give the same values, or another cohort.name"
    )
