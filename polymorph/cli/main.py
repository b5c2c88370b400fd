"""The command `polymorph`: its subcommands, each imported when it is called."""

import sys
from collections.abc import Sequence
from importlib import import_module

from polymorph.cli.ending import DONE, WRONG
from polymorph.cli.extras import missing_line

BY_HYDRA = {
    "train": "train the members of a cohort, or their SAEs, or take in models that exist",
    "analyze": "compare the members of a cohort: tables, claims, figures and a page",
}
"""What takes keys of the configuration; the same as train.py and analyze.py in a checkout."""
OF_COHORTS = {
    "list": "the cohorts in a folder",
    "status": "where each member of a cohort stands",
    "verify": "read every file of a cohort against its digest",
    "prune": "remove leftovers and old training states",
    "export": "copy a cohort, reduced to some checkpoints and its logs",
}
"""What looks after cohorts that are there; needs nothing but the core of the package."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; its exit status."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage(), end="")
        return DONE
    try:
        if name in BY_HYDRA:
            return int(import_module("polymorph.cli.command").main(name, rest))
        if name in OF_COHORTS:
            return int(import_module("polymorph.cli.cohorts").main(name, rest))
    except ModuleNotFoundError as error:
        if (line := missing_line(error)) is None:
            raise
        print(f"{name}: {line}", file=sys.stderr)
        return WRONG
    print(f"polymorph: there is no command {name!r}: {', '.join((*BY_HYDRA, *OF_COHORTS))}", file=sys.stderr)
    return WRONG


def usage() -> str:
    """What `polymorph --help` prints."""
    lines = [
        "Train cohorts of seeds, and ask whether independently trained models are the same inside.",
        "",
        *(f"  polymorph {name:<8}  {says}" for name, says in (BY_HYDRA | OF_COHORTS).items()),
        "",
        "polymorph <command> --help says more of one of them.",
    ]
    return "\n".join(lines) + "\n"
