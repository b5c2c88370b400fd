"""How a command ended, and what a refusal looks like."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from polymorph.cli import command

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Ended:
    """Exit status and what was printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]
"""`run("train", "seed=0")` is `python train.py seed=0`."""


def check_refused(ended: Ended, *expected: str) -> None:
    """One line on stderr in which every pattern is found, and exit status 2."""
    assert ended.status == command.WRONG, ended
    lines = ended.err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    for pattern in expected:
        assert re.search(pattern, lines[0]), f"{pattern} is not in: {lines[0]}"
