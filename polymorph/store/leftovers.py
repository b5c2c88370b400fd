"""The drafts of dead processes are removed; those of living ones never."""

import time
from contextlib import suppress
from pathlib import Path

from polymorph.store import durable, files
from polymorph.store import safe_read as looking
from polymorph.store.process_liveness import draft_name, is_draft, owner_lives

ABANDONED = 24 * 3600.0  # seconds; whether a process of another host lives cannot be known


def sweep(folder: Path, depth: int = 0) -> list[str]:
    """Remove the leftovers in `folder`, and in folders up to `depth` below it; the names that were removed.

    What the system does not let be listed or removed stays; links are not followed.
    """
    try:
        names = files.names(folder)
    except OSError:
        return []
    drafts = [name for name in names if is_draft(name)]
    gone = [name for name in drafts if _is_leftover(folder / name) and _remove(folder / name)]
    below = [folder / name for name in names if depth > 0 and not name.startswith(".")]
    return gone + [name for path in below if looking.is_folder(path) for name in sweep(path, depth - 1)]


def _is_leftover(draft: Path) -> bool:
    alive = owner_lives(draft.name)
    return _is_old(draft) if alive is None else not alive


def _is_old(draft: Path) -> bool:
    with suppress(OSError):
        return time.time() - files.stat(draft).st_mtime > ABANDONED
    return False


def _remove(draft: Path) -> bool:
    # Renamed first: a writer believed dead that publishes at this moment either wins, and nothing is removed
    # under its new name, or finds its draft gone and says so.
    with suppress(OSError):
        own = draft.parent / draft_name()
        files.rename(draft, own)
        durable.drop(own)
        return True
    return False
