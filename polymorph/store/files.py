"""Every file-system call of the store, one function each: a test can fail or kill at every single one.

No other module of the store touches the file system, and none of these functions decides anything.
"""

import os
import shutil
from pathlib import Path

FOLDER_MODE = 0o755  # less the umask, as for every file of the user's
FILE_MODE = 0o644


def make_folder(path: Path) -> None:
    os.mkdir(path, FOLDER_MODE)  # noqa: PTH102  (every call here is the system's own)


def open_new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)


def open_append(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)


def open_read(path: Path) -> int:
    """Does not wait on a named pipe and does not follow a link in the last place."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


def open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def write(descriptor: int, data: memoryview) -> int:
    return os.write(descriptor, data)


def read(descriptor: int, size: int) -> bytes:
    return os.read(descriptor, size)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    return os.pread(descriptor, size, offset)


def stat_open(descriptor: int) -> os.stat_result:
    return os.fstat(descriptor)


def sync(descriptor: int) -> None:
    os.fsync(descriptor)


def close(descriptor: int) -> None:
    os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Of a folder; fails on a folder that is not empty, so it never replaces what was published."""
    os.rename(source, target)  # noqa: PTH104


def replace(source: Path, target: Path) -> None:
    os.replace(source, target)  # noqa: PTH105


def link(source: Path, target: Path) -> None:
    """A second name for a file; fails where the name is taken."""
    os.link(source, target)


def remove_file(path: Path) -> None:
    os.unlink(path)  # noqa: PTH108


def remove_tree(path: Path) -> None:
    shutil.rmtree(path)


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))  # noqa: PTH208


def stat(path: Path) -> os.stat_result:
    """Of the name itself: a link is not followed."""
    return os.lstat(path)


def real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  (`..` is taken out, links are not followed)


def read_link(path: Path) -> str:
    return os.readlink(path)  # noqa: PTH115


def read_text(path: Path) -> str:
    """For the small files of the system that say which processes live."""
    return path.read_text()
