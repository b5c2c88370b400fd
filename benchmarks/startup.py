"""What it costs to be answered: CPU seconds of a process that only imports, explains, or refuses.

python -m benchmarks.startup [--repeat 5]
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from polymorph.cli.ending import DONE, WRONG

ROOT = Path(__file__).resolve().parent.parent
MISTYPED = ("trainer.max_step=3", "stdy=ladder")
CALLS: dict[str, tuple[str, ...]] = {
    "python, nothing": ("-c", "pass"),
    "import polymorph": ("-c", "import polymorph"),
    "polymorph --help": ("-m", "polymorph", "--help"),
    "polymorph train --help": ("-m", "polymorph", "train", "--help"),
    "polymorph list": ("-m", "polymorph", "list", "."),
    **{f"polymorph train {key}": ("-m", "polymorph", "train", key) for key in MISTYPED[:1]},
    **{f"python train.py {key}": ("train.py", key) for key in MISTYPED[:1]},
    **{
        f"polymorph analyze {key}": ("-m", "polymorph", "analyze", "cohort=none", key) for key in MISTYPED[1:]
    },
    "from polymorph import compare": ("-c", "from polymorph import compare"),
}


def cpu_seconds(arguments: Sequence[str], expected: int) -> float:
    """User and system time of one Python process with one thread, which ends with the expected status."""
    before = os.times()
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    after = os.times()
    if ended.returncode != expected:
        raise SystemExit(f"{' '.join(arguments)}: exit status {ended.returncode}, not {expected}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args(arguments).repeat
    print(f"{'call':<38} {'least':>7} {'median':>7}   CPU seconds of {repeat}")
    for name, call in CALLS.items():
        expected = WRONG if any(key in call for key in MISTYPED) else DONE
        found = sorted(cpu_seconds(call, expected) for _ in range(repeat))
        print(f"{name:<38} {found[0]:>7.2f} {found[repeat // 2]:>7.2f}")


if __name__ == "__main__":
    main()
