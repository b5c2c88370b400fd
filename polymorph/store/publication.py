"""Folders that are published whole, never change afterwards, and are verified whenever they are read.

A folder is written under the name of a draft, its manifest last; files and folder are synced; then it gets
its name by a rename that replaces nothing, and the name is synced. `root` is the cohort's folder: no link
below it is followed, and missing folders below it are made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymorph.store import durable, files, safe_read
from polymorph.store.canonical_json import LARGEST, sha256
from polymorph.store.errors import (
    ConflictError,
    CorruptError,
    UnreadableError,
    VersionError,
    reading,
    writing,
)
from polymorph.store.manifest import MANIFEST, Manifest, decode, encode, name_problem
from polymorph.store.process_liveness import draft_name

LARGEST_FILE = 1 << 36  # bytes: 64 GiB
# Set aside, for people to look at; readers ignore names that start with a dot.
CORRUPT = ".corrupt-"
SUPERSEDED = ".superseded-"


@dataclass(frozen=True)
class Published:
    """What was read from a folder, verified."""

    manifest: Manifest
    files: Mapping[str, bytes]


def is_published(folder: Path) -> bool:
    """Whether something was published there; says nothing about whether it is still whole."""
    return safe_read.exists(folder / MANIFEST)


def publish(
    folder: Path, contents: Mapping[str, bytes], facts: Mapping[str, Any], root: Path | None = None
) -> Manifest:
    """Publish `contents` (names to bytes) with `facts`; the same again is benign.

    Raises `ConflictError` if something else is published there, `CorruptError` if what is published there is
    not whole, `WriteError` or `NoSpaceError` if the system refused; in each case the folder is as it was.
    """
    root = folder.parent if root is None else root
    encoded = encode(contents, facts)
    manifest = decode(encoded, folder / MANIFEST)
    safe_read.check_inside(folder, root)
    with writing(folder):
        if safe_read.exists(folder) or not _place(folder, {**contents, MANIFEST: encoded}, root):
            _settle(folder, manifest, root)
    return manifest


def publish_again(
    folder: Path, contents: Mapping[str, bytes], facts: Mapping[str, Any], root: Path | None = None
) -> Manifest:
    """As `publish`; what is there and proven not to be whole is set aside first, under a `.corrupt-` name."""
    try:
        return publish(folder, contents, facts, root)
    except (VersionError, UnreadableError):  # it may be whole
        raise
    except CorruptError:
        set_aside(folder, root)
        return publish(folder, contents, facts, root)


def _place(folder: Path, contents: Mapping[str, bytes], root: Path) -> bool:
    """Whether the folder got its name; False if something else had it first."""
    if not safe_read.exists(root):
        durable.make_parents(root)
    durable.make_folders(folder.parent, root)
    draft = folder.parent / draft_name()
    try:
        _write(draft, contents)
        placed = durable.rename_new(draft, folder)
    except OSError:
        durable.drop(draft)
        raise
    if not placed:
        durable.drop(draft)
    return placed


def _write(draft: Path, contents: Mapping[str, bytes]) -> None:
    files.make_folder(draft)
    for name, data in contents.items():  # the manifest is the last of them
        durable.write_new(draft / name, data)
    durable.sync_folder(draft)


def _settle(folder: Path, manifest: Manifest, root: Path) -> None:
    there = read(folder, root).manifest
    if there.digest != manifest.digest:
        raise ConflictError(
            f"{folder} was published with digest {there.digest} and cannot be published again "
            f"with digest {manifest.digest}: two runs that differ write to one place"
        )
    durable.sync_folder(folder.parent)  # whoever published it may have been killed before this


def read(folder: Path, root: Path | None = None) -> Published:
    """What is published there, every size and digest verified; `CorruptError` says what is not as it was."""
    safe_read.check_inside(folder, folder.parent if root is None else root)
    manifest = decode(safe_read.read_whole(folder / MANIFEST, LARGEST), folder / MANIFEST)
    check_names(folder, manifest)
    return Published(manifest, {name: _read_file(folder, name, manifest) for name in manifest.files})


def check_names(folder: Path, manifest: Manifest) -> None:
    """Raise `CorruptError` unless the folder holds what was published, by name, and nothing else."""
    with reading(folder):
        there = set(files.names(folder)) - {MANIFEST}
    for name in sorted(there - set(manifest.files)):
        raise CorruptError(
            f"{folder} holds {name!r}, which was not published: {name_problem(name) or 'remove it'}"
        )
    for name in sorted(set(manifest.files) - there):
        raise CorruptError(f"{folder / name} is missing")


def _read_file(folder: Path, name: str, manifest: Manifest) -> bytes:
    entry = manifest.files[name]
    data = safe_read.read_whole(folder / name, LARGEST_FILE)
    if len(data) != entry.size:
        raise CorruptError(f"{folder / name} has {len(data)} bytes where {entry.size} were published")
    if (found := sha256(data)) != entry.sha256:
        raise CorruptError(f"{folder / name} has SHA-256 {found} where {entry.sha256} was published")
    return data


def set_aside(folder: Path, root: Path | None = None, mark: str = CORRUPT) -> Path | None:
    """Take the folder out of readers' sight, but keep it; its new place, None if it is gone already."""
    safe_read.check_inside(folder.parent, folder.parent if root is None else root)
    aside = folder.parent / f"{mark}{folder.name}{draft_name()}"
    with writing(aside):
        try:
            files.rename(folder, aside)
        except FileNotFoundError:
            return None
        durable.sync_folder(folder.parent)
    return aside


def remove(folder: Path, root: Path | None = None) -> None:
    """Remove what is published there: whole for every reader until it is gone. Gone already is benign."""
    safe_read.check_inside(folder.parent, folder.parent if root is None else root)
    with writing(folder):
        if safe_read.exists(folder):
            durable.remove(folder)
