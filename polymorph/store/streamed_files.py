"""Folders with files too big for memory: written piece by piece as a draft, published like any other, read in pieces.

What `publication` says of published folders holds of these too: the manifest comes last, files and folder are
synced, and a rename that replaces nothing gives the name.
"""

import hashlib
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from polymorph.store import durable, files, safe_read
from polymorph.store.canonical_json import LARGEST, plain
from polymorph.store.checksummed_json import seal
from polymorph.store.errors import ConflictError, CorruptError, reading, writing
from polymorph.store.manifest import MANIFEST, Entry, Manifest, decode
from polymorph.store.process_liveness import draft_name
from polymorph.store.publication import check_names

BLOCK = 1 << 20  # bytes read at once


@contextmanager
def draft_below(root: Path) -> Iterator[Path]:
    """A new folder of a draft in `root`, which is made if it is missing; dropped at the end if it is still there."""
    draft = root / draft_name()
    with writing(draft):
        if not safe_read.exists(root):
            durable.make_parents(root)
        files.make_folder(draft)
    try:
        yield draft
    finally:
        durable.drop(draft)


class Stream:
    """A new file of a draft, hashed while it is written; its entry is there once it was closed without an error."""

    def __init__(self, path: Path) -> None:
        self.entry: Entry | None = None
        self._path = path
        self._hash = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> "Stream":
        with writing(self._path):
            self._descriptor = files.open_new(self._path)
        return self

    def write(self, data: bytes) -> None:
        with writing(self._path):
            durable.write_all(self._descriptor, data)
        self._hash.update(data)
        self._size += len(data)

    def __exit__(self, kind: object, *_: object) -> None:
        with writing(self._path):
            try:
                if kind is None:
                    files.sync(self._descriptor)
                    self.entry = Entry(self._size, self._hash.hexdigest())
            finally:
                files.close(self._descriptor)


def publish_draft(
    draft: Path, entries: Mapping[str, Entry], facts: Mapping[str, Any], folder: Path, root: Path
) -> Manifest:
    """Publish a draft whose files are written and synced; if the same was published meanwhile, that is benign.

    Raises as `publish` does. The draft is on the file system of `folder`, which lies in `root` itself.
    """
    listed = {name: asdict(entry) for name, entry in entries.items()}
    encoded = seal({"files": listed, "facts": plain(facts)})
    manifest = decode(encoded, folder / MANIFEST)
    safe_read.check_inside(folder, root)
    with writing(folder):
        check_names(draft, manifest)
        durable.write_new(draft / MANIFEST, encoded)
        durable.sync_folder(draft)
        if safe_read.exists(folder) or not durable.rename_new(draft, folder):
            _settle(folder, manifest, root)
    return manifest


def _settle(folder: Path, manifest: Manifest, root: Path) -> None:
    there = read_streamed(folder, root)
    if there.digest != manifest.digest:
        raise ConflictError(
            f"{folder} was published with digest {there.digest} and cannot be published again "
            f"with digest {manifest.digest}: two runs that differ write to one place"
        )
    durable.sync_folder(folder.parent)  # whoever published it may have been killed before this


def read_manifest(folder: Path, root: Path) -> Manifest:
    """What is published there by its manifest alone; the files are not looked at."""
    safe_read.check_inside(folder, root)
    return decode(safe_read.read_whole(folder / MANIFEST, LARGEST), folder / MANIFEST)


def read_streamed(folder: Path, root: Path) -> Manifest:
    """What is published there, every size and digest verified, no file read whole.

    A file is read once a process, and again if its size, its time or the file behind the name has changed.
    """
    manifest = read_manifest(folder, root)
    check_names(folder, manifest)
    for name, entry in manifest.files.items():
        _check_file(folder / name, entry)
    return manifest


def _check_file(path: Path, entry: Entry) -> None:
    with reading(path):
        facts = files.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise CorruptError(f"{path} is not a regular file")
        if facts.st_size != entry.size:
            raise CorruptError(f"{path} has {facts.st_size} bytes where {entry.size} were published")
        found = _digest(files.real(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)
    if found != entry.sha256:
        raise CorruptError(f"{path} has SHA-256 {found} where {entry.sha256} was published")


@lru_cache(maxsize=1024)
def _digest(path: Path, size: int, changed: int, number: int) -> str:
    """SHA-256 of the file's first `size` bytes; what tells one state of it from another is only a key."""
    digest = hashlib.sha256()
    descriptor = files.open_read(path)
    try:
        while size > 0 and (block := files.read(descriptor, min(size, BLOCK))):
            digest.update(block)
            size -= len(block)
    finally:
        files.close(descriptor)
    return digest.hexdigest()
