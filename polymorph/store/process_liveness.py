"""The names of drafts, and whether the process that made one still lives.

A draft is a file or folder that is being written or removed: `.draft-<home>-<pid>-<start>-<token>`. Readers
ignore every name that starts with a dot. `home` stands for a host, since its last start, and the process
numbers in use there; the start time tells a process from a later one of the same number.
"""

import hashlib
import secrets
import socket
from functools import cache
from os import getpid, kill
from pathlib import Path

from polymorph.store import files

PREFIX = ".draft"
UNKNOWN = "0"  # a start time, where the system does not say
PROCESSES = Path("/proc")


@cache
def home() -> str:
    """12 hexadecimal digits, equal for two processes exactly if one can tell whether the other lives."""
    parts = [socket.gethostname(), _boot(), _numbering()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _boot() -> str:
    try:
        return files.read_text(PROCESSES / "sys/kernel/random/boot_id").strip()
    except OSError:
        return ""


def _numbering() -> str:
    try:
        return files.read_link(PROCESSES / "self/ns/pid")
    except OSError:
        return ""


def started(pid: int) -> str | None:
    """The start time in ticks since boot, `ended` for a process that only waits to be reaped, or None."""
    try:
        text = files.read_text(PROCESSES / str(pid) / "stat")
    except OSError:
        return None
    # The second field is the program's name in brackets and may hold anything, brackets and spaces included.
    fields = text.rpartition(")")[2].split()
    return "ended" if fields[0] in "ZX" else fields[19]


def lives(pid: int, start: str) -> bool:
    """Whether the process `pid` of this home that began at `start` lives; in doubt it does."""
    try:
        kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's, so it is there
        pass
    now = started(pid)
    return now is None or start == UNKNOWN or now == start


def draft_name() -> str:
    pid = getpid()
    return f"{PREFIX}-{home()}-{pid}-{started(pid) or UNKNOWN}-{secrets.token_hex(4)}"


def is_draft(name: str) -> bool:
    return name.startswith(f"{PREFIX}-")


def owner_lives(name: str) -> bool | None:
    """Of a draft's name: whether its maker lives; None where that cannot be known from here."""
    parts = name.split("-")
    if len(parts) != 5 or parts[1] != home() or not parts[2].isdecimal() or len(parts[2]) > 9:
        return None
    return lives(int(parts[2]), parts[3])
