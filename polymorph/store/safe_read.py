"""What is there, read whole and from regular files inside the cohort's folder only.

Errors are `CorruptError`: these functions read what other processes, or other people, have written.
"""

import stat
from contextlib import suppress
from pathlib import Path

from polymorph.store import files
from polymorph.store.errors import CorruptError, reading

CHUNK = 1 << 30  # one call reads at most 2 GiB on Linux


def exists(path: Path) -> bool:
    """Whether the name is taken, by whatever it may be; `UnreadableError` if that cannot be seen."""
    with reading(path):
        try:
            files.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def is_folder(path: Path) -> bool:
    """Whether it is a folder itself, not a link to one."""
    with suppress(OSError):
        return stat.S_ISDIR(files.stat(path).st_mode)
    return False


def check_inside(path: Path, root: Path) -> None:
    """Raise `CorruptError` if a symbolic link below `root` leads `path` elsewhere."""
    with reading(path):
        if files.real(path) != files.real(root) / path.relative_to(root):
            raise CorruptError(f"{path} is, or lies behind, a symbolic link; a cohort holds its own files")


def read_whole(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; anything else raises `CorruptError`."""
    with reading(path):
        descriptor = files.open_read(path)
        try:
            return _read_open(descriptor, path, limit)
        finally:
            files.close(descriptor)


def _read_open(descriptor: int, path: Path, limit: int) -> bytes:
    facts = files.stat_open(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise CorruptError(f"{path} is not a regular file")
    if facts.st_size > limit:
        raise CorruptError(f"{path} has {facts.st_size} bytes; at most {limit} are read")
    return _read_all(descriptor, facts.st_size)


def _read_all(descriptor: int, size: int) -> bytes:
    """At most `size` bytes: what is appended meanwhile is not seen."""
    chunks: list[bytes] = []
    while size > 0 and (chunk := files.read(descriptor, min(size, CHUNK))):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
