"""What it costs to be answered: CPU seconds of a process that only imports, explains, or refuses.

python -m benchmarks.startup [--repeat 5]
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALLS = {
    "python, nothing": ("-c", "pass"),
    "import polymorph": ("-c", "import polymorph"),
    "polymorph --help": ("-m", "polymorph", "--help"),
    "polymorph train --help": ("-m", "polymorph", "train", "--help"),
    "polymorph list": ("-m", "polymorph", "list", "."),
    "polymorph train trainer.max_step=3": ("-m", "polymorph", "train", "trainer.max_step=3"),
    "python train.py trainer.max_step=3": ("train.py", "trainer.max_step=3"),
    "polymorph analyze stdy=ladder": ("-m", "polymorph", "analyze", "cohort=none", "stdy=ladder"),
    "from polymorph import compare": ("-c", "from polymorph import compare"),
}


def cpu_seconds(arguments: Sequence[str]) -> float:
    """User and system time of one Python process with one thread."""
    before = os.times()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args(arguments).repeat
    print(f"{'call':<38} {'least':>7} {'median':>7}   CPU seconds of {repeat}")
    for name, call in CALLS.items():
        found = sorted(cpu_seconds(call) for _ in range(repeat))
        print(f"{name:<38} {found[0]:>7.2f} {found[repeat // 2]:>7.2f}")


if __name__ == "__main__":
    main()
