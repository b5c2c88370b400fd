"""Files and folders that are there whole or not at all, and stay after a power loss.

Functions here raise `OSError`, and leave no draft behind unless the process is killed; who calls them says in
an error of ours what was being done.
"""

import errno
from contextlib import suppress
from pathlib import Path

from polymorph.store import files
from polymorph.store.process_liveness import draft_name
from polymorph.store.safe_read import exists, is_folder

TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
# Some network file systems keep names safe by themselves; and a folder that may be written to but not read
# cannot be opened to be synced.
NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})
CHUNK = 1 << 30  # one call writes at most 2 GiB on Linux
CANCEL = b"\x18\n"  # ends a line that a killed writer left torn; never part of JSON


def sync_folder(path: Path) -> None:
    try:
        _sync_open(files.open_folder(path))
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise


def _sync_open(descriptor: int) -> None:
    try:
        files.sync(descriptor)
    finally:
        files.close(descriptor)


def make_folders(path: Path, root: Path) -> None:
    """Make `path` and what is missing above it, up to but without `root`, and sync every name on the way."""
    for folder in [*reversed(path.relative_to(root).parents), path.relative_to(root)][1:]:
        make_folder(root / folder)


def make_parents(path: Path) -> None:
    """Make the folder and all that is missing above it; what is there may lie behind links of the user's."""
    if not exists(path.parent):
        make_parents(path.parent)
    make_folder(path)


def make_folder(path: Path) -> None:
    # One that is already there is synced too: who made it may have been killed before doing so.
    with suppress(FileExistsError):
        files.make_folder(path)
    sync_folder(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """Write and sync a file that did not exist."""
    descriptor = files.open_new(path)
    try:
        write_all(descriptor, data)
        files.sync(descriptor)
    finally:
        files.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[files.write(descriptor, view[:CHUNK]) :]


def write_draft(parent: Path, data: bytes) -> Path:
    draft = parent / draft_name()
    try:
        write_new(draft, data)
    except OSError:
        drop(draft)
        raise
    return draft


def drop(path: Path) -> None:
    """Remove a draft as far as the system allows: what stays is swept at the next start."""
    with suppress(OSError):
        if is_folder(path):
            files.remove_tree(path)
        else:
            files.remove_file(path)


def replace_file(path: Path, data: bytes) -> None:
    """The file holds the old bytes or the new ones at every moment."""
    draft = write_draft(path.parent, data)
    try:
        files.replace(draft, path)
    except OSError:
        drop(draft)
        raise
    sync_folder(path.parent)


def create_file(path: Path, data: bytes) -> bool:
    """Whether the file was made, whole; False if the name was taken, and then nothing has changed."""
    draft = write_draft(path.parent, data)
    try:
        made = _give_name(draft, path)
    finally:
        drop(draft)
    sync_folder(path.parent)
    return made


def _give_name(draft: Path, path: Path) -> bool:
    try:
        files.link(draft, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _move_name(draft, path)
    return True


def _move_name(draft: Path, path: Path) -> bool:
    """Where the file system has no links; of two at the same moment the later wins, still whole."""
    if exists(path):
        return False
    files.replace(draft, path)
    return True


def rename_new(source: Path, target: Path) -> bool:
    """Whether the folder got the name; False if the name was taken, and then nothing has changed."""
    try:
        files.rename(source, target)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    sync_folder(target.parent)
    return True


def remove(path: Path) -> None:
    """Remove a folder or file so that no reader ever sees it in part."""
    draft = path.parent / draft_name()
    files.rename(path, draft)
    sync_folder(path.parent)  # or a power loss might bring back the name over half of the content
    drop(draft)


def append_line(path: Path, line: bytes) -> None:
    """Append a line with one write; a line that a killed writer left torn is ended and marked as such."""
    descriptor = files.open_append(path)
    try:
        write_all(descriptor, _ending(descriptor) + line + b"\n")
    finally:
        files.close(descriptor)


def _ending(descriptor: int) -> bytes:
    size = files.stat_open(descriptor).st_size
    torn = size > 0 and files.read_at(descriptor, 1, size - 1) != b"\n"
    return CANCEL if torn else b""
