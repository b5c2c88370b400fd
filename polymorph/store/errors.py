"""What can be wrong with what a cohort holds, and with keeping something in it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polymorph.errors import RunError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class CorruptError(RunError):
    """What is stored is not what was published; the message names the file and what is wrong with it."""


class VersionError(CorruptError):
    """It is of a major schema version that this program does not know; nothing says that it is damaged."""


class UnreadableError(CorruptError):
    """The system would not let it be read; nothing says that it is damaged."""


class ConflictError(RunError):
    """Something else was published under the same name; both digests are in the message."""


class WriteError(RunError):
    """It could not be written; what was published before is as it was."""


class NoSpaceError(WriteError):
    """It could not be written because the disk, or the quota, is full."""


def reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A system error inside becomes a `WriteError` (`NoSpaceError` on a full disk) that names `path`."""
    try:
        yield
    except OSError as error:
        kind = NoSpaceError if error.errno in FULL else WriteError
        raise kind(f"{path} could not be written: {reason(error)}") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A system error inside becomes a `CorruptError` that names `path`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptError(f"{path} is missing") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptError(f"{path} is a symbolic link") from error
        raise UnreadableError(f"{path} could not be read: {reason(error)}") from error
