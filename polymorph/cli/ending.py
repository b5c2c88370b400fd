"""How a command ends: its exit status, the line that says what is wrong, and how each job of a process ended."""

import sys
from dataclasses import dataclass
from pathlib import Path

DONE, FAILED, WRONG, PREEMPTED = 0, 1, 2, 143
"""Done; something failed; the request was wrong and nothing was written; asked to stop."""


@dataclass(frozen=True)
class Ending:
    """How one training job ended in this process, beyond what its members have recorded."""

    folder: Path
    """The cohort's."""
    stopped: bool = False
    """Whether the process was asked to stop, so that it starts no more jobs."""
    refused: bool = False
    """Whether the text or the models of the job could not be taken in, whatever is there from before."""


def called(name: str) -> str:
    """How a command is called from where this one was: by its script in a checkout, or as installed."""
    return (
        f"python {name}.py" if Path(sys.argv[0]).name in ("train.py", "analyze.py") else f"polymorph {name}"
    )


def complain(name: str, error: Exception) -> None:
    """One line about what is wrong, on standard error."""
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
