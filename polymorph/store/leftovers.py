"""The drafts of dead processes are removed; those of living ones never."""

import time
from contextlib import suppress
from pathlib import Path

from polymorph.store import durable, files, safe_read
from polymorph.store.process_liveness import draft_name, is_draft, owner_lives

ABANDONED = 24 * 3600.0  # seconds; whether a process of another host lives cannot be known


def sweep(folder: Path, depth: int = 0) -> list[str]:
    """Remove the leftovers in `folder`, and in folders up to `depth` below it; the names that were removed.

    What the system does not let be listed or removed stays; links are not followed.
    """
    return [draft.name for draft in leftovers(folder, depth) if _remove(draft)]


def leftovers(folder: Path, depth: int = 0) -> list[Path]:
    """What `sweep` would remove."""
    try:
        names = files.names(folder)
    except OSError:
        return []
    drafts = [folder / name for name in names if is_draft(name)]
    below = [folder / name for name in names if depth > 0 and not name.startswith(".")]
    deeper = [draft for path in below if safe_read.is_folder(path) for draft in leftovers(path, depth - 1)]
    return [draft for draft in drafts if _is_leftover(draft)] + deeper


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
