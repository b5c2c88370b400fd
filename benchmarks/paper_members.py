"""The members of the paper's cohorts: where each stands in its training, and the export of those that have finished.

    python -m benchmarks.paper_members export --cohorts <folder> --to docs/results/paper
    python -m benchmarks.paper_members status --cohorts <folder> --to docs/results/paper --jobs 2 <cohort>:<seed> …

`benchmarks/paper_cohorts.sh` calls both. An export writes a cohort folder for each cohort below `members/`, and
the table of `README.md`. Exit status: 0 done, 1 something was not exported.
"""

import argparse
import fcntl
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.exporting import LARGEST, best_evaluation, export_cohort, exported_bytes
from polymorph.errors import RequestError, RunError
from polymorph.store import Cohort, Member, durable

BEGIN, END = "<!-- members: made by the export -->", "<!-- /members -->"
COLUMNS = (
    *("cohort", "seed", "steps", "converged at", "best", "least accuracy", "checkpoints"),
    *("precision", "compiled", "device", "torch", "commit"),
)
RATES = 10
"""Rows of the training log over which the speed is a median."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("export", "status"))
    parser.add_argument("members", nargs="*", metavar="cohort:seed", help="whose status is told")
    parser.add_argument("--cohorts", type=Path, required=True, help="the folder of the cohorts in training")
    parser.add_argument("--to", type=Path, required=True, help="the folder of the page and of members/")
    parser.add_argument("--locks", type=Path, help="the folder of the locks of running members")
    parser.add_argument("--jobs", type=int, default=1, help="members that train beside each other")
    parser.add_argument("--limit", type=int, default=LARGEST, help="bytes of everything that is exported")
    options = parser.parse_intermixed_args(arguments)
    return export(options) if options.what == "export" else status(options)


# Export.


def export(options: argparse.Namespace) -> int:
    """Export every completed member of every cohort, and write the table anew."""
    failed = 0
    for folder in sorted(path.parent for path in options.cohorts.glob("*/cohort.json")):
        try:
            for path in export_cohort(Cohort.open(folder), options.to / "members", options.limit):
                print(f"exported: {path}")
        except (RequestError, RunError, OSError) as error:
            failed = 1
            print(f"export: {error}", file=sys.stderr)
    write_table(options.to)
    print(f"{options.to / 'members'}: {exported_bytes(options.to / 'members'):,} of {options.limit:,} bytes")
    return failed


def write_table(page: Path) -> None:
    """Put the table of all exported members between the marks of `README.md`, which is made if it is missing."""
    path = page / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise RunError(f"{path} does not hold the lines {BEGIN} and {END}")
    table = "\n".join((f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", *_lines(page / "members")))
    whole = f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"
    if whole != text:
        durable.make_parents(page)
        durable.replace_file(path, whole.encode())


def _lines(folder: Path) -> Iterable[str]:
    for cohort in sorted(path.parent for path in folder.glob("*/cohort.json")):
        for member in Cohort.open(cohort).members():
            yield f"| {' | '.join(facts(cohort.name, member))} |"


def facts(cohort: str, member: Member) -> list[str]:
    """The cells of one exported member, in the order of `COLUMNS`."""
    rows, steps, ended = member.rows(), member.steps(), member.status()
    assert ended is not None
    numerics = member.read_step(steps[-1]).manifest.facts.get("numerics", {})
    converged = re.search(r"converged at step (\d+)", ended.reason)
    best = best_evaluation(rows)
    shown = map(str, steps)
    commits = dict.fromkeys(str(row.get("code_version")) for row in rows if row.get("kind") == "start")
    return [
        *(cohort, str(member.seed), f"{ended.step:,}"),
        f"{int(converged[1]):,}" if converged else "–",
        *(("–", "–") if best is None else (f"{best[0]:,}", f"{best[1]:.6f}")),
        ", ".join(shown),
        *(str(numerics.get(key)) for key in ("precision", "compile", "device", "torch")),
        ", ".join(commits),
    ]


# Status.


def status(options: argparse.Namespace) -> int:
    """One line for every member, then how long all that is missing takes."""
    ahead: list[tuple[int, float | None]] = []
    running = 0
    for name in options.members:
        cohort, _, seed = name.rpartition(":")
        member = Member((options.cohorts / cohort).absolute(), int(seed))
        there = Member((options.to / "members" / cohort).absolute(), int(seed))
        pid = holder(options.locks / f"{cohort}-{seed}.lock") if options.locks else None
        line, missing, rate = standing(member, pid, there.folder.is_dir())
        print(f"{cohort:26} {seed:>4}  {line}")
        running += pid is not None
        ahead.append((missing, rate))
    if rates := [rate for _, rate in ahead if rate]:
        usual = statistics.median(rates)
        seconds = sum(missing / (rate or usual) for missing, rate in ahead)
        print(f"all: {_time(seconds / options.jobs)} with {options.jobs} at once; {running} running now")
    return 0


def standing(member: Member, pid: int | None, exported: bool) -> tuple[str, int, float | None]:
    """Of one member: its line, the steps that it lacks, and its steps a second if it has any."""
    recorded = member.status()
    state: str = "waiting" if recorded is None else recorded.state
    if recorded is not None and state in ("completed", "diverged"):
        what = f"{state} at step {recorded.step:,} ({recorded.reason})"
        return what + (", exported" if exported else ", not exported"), 0, None
    if exported:
        return "exported, trained elsewhere", 0, None
    rows = member.rows()
    trained = [row for row in rows if row.get("kind") == "train"]
    step = trained[-1]["step"] if trained else 0
    speeds = [row["train/steps_per_second"] for row in trained[-RATES:]]
    rate = statistics.median(speeds) if speeds else None
    last = last_step(member, rows)
    state = f"running ({_process(pid)})" if pid is not None else state.replace("running", "not running")
    best = best_evaluation(rows)
    shown = f"step {step:,} of {last:,}" + (f", least accuracy {best[1]:.4f} at {best[0]:,}" if best else "")
    eta = f", {rate:.2f} steps/s, {_time((last - step) / rate)} left" if rate else ""
    return f"{state}: {shown}{eta}", last - step, rate


def last_step(member: Member, rows: Iterable[Mapping[str, Any]]) -> int:
    """Where the member ends as far as is known now: at its last step, or its patience after it has converged."""
    trainer = member.config()["trainer"] if member.has_config() else {}
    longest = int(trainer.get("max_steps", 60_000))
    rule = trainer.get("convergence", {"accuracy": 0.9999, "patience": 10_000})
    evaluations = (row for row in rows if row.get("kind") == "evaluation")
    for row in sorted(evaluations, key=lambda row: row["step"]):
        best = best_evaluation([row])
        if best is not None and best[1] >= rule["accuracy"]:
            return min(longest, row["step"] + int(rule["patience"]))
    return longest


def holder(lock: Path) -> int | None:
    """The process that holds the lock, None if nobody does."""
    if not lock.is_file():
        return None
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return int(file.read().strip() or 0)
    return None


def _process(pid: int) -> str:
    stat = Path(f"/proc/{pid}/stat")
    paused = stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "T"
    return f"process {pid}, paused" if paused else f"process {pid}"


def _time(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


if __name__ == "__main__":
    sys.exit(main())
