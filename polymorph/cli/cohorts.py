"""`polymorph list|status|verify|prune|export`: what is there of cohorts, whether it is whole, and what may go."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from polymorph.cli.ending import DONE, FAILED, WRONG, complain
from polymorph.errors import RequestError, RunError
from polymorph.store import Cohort, CorruptError, Member
from polymorph.store.reduced_copy import completed, copy_reduced
from polymorph.store.search import cohorts_below, find_cohort
from polymorph.store.verification import verify

STATES_KEPT = 1


class _Parser(argparse.ArgumentParser):
    """One line about what is wrong."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog.removeprefix('polymorph ')}: {message}", file=sys.stderr)
        raise SystemExit(WRONG)


def main(name: str, arguments: Sequence[str]) -> int:
    """Carry out one of the commands; its exit status."""
    says, action, add = COMMANDS[name]
    parser = _Parser(prog=f"polymorph {name}", description=says)
    add(parser)
    try:
        asked = parser.parse_args(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else WRONG
    try:
        return action(asked)
    except RequestError as error:
        complain(name, error)
        return WRONG
    except RunError as error:
        complain(name, error)
        return FAILED


# What there is.


def _list(asked: argparse.Namespace) -> int:
    root = Path(asked.root)
    if not root.is_dir():
        raise RequestError(f"{root} is no folder; give the one in which the cohorts are")
    for folder in cohorts_below(root):
        try:
            print(_summary(Cohort.open(folder)))
        except RunError as error:
            print(f"{folder.name}: cannot be read: {error}")
    return DONE


def _summary(cohort: Cohort) -> str:
    members = cohort.members()
    states = [_state(member) for member in members]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    steps = [member.steps()[-1] for member in members if member.steps()]
    latest = f", checkpoints up to step {max(steps):,}" if steps else ""
    return f"{cohort.name}: {_count(len(members), 'member')}{f' ({counts})' if counts else ''}{latest}"


def _status(asked: argparse.Namespace) -> int:
    cohort = find_cohort(asked.cohort, asked.root)
    print(
        f"{cohort.name}: {cohort.identity['task'].get('name')}, {cohort.identity['architecture'].get('name')}"
    )
    for member in cohort.members():
        print(f"  seed {member.seed}: {', '.join(_facts(member))}")
    analyses = sorted(path.parent.name for path in cohort.folder.glob("analysis/*/made_from.json"))
    print(f"  analyses: {', '.join(analyses) or 'none'}")
    return DONE


def _facts(member: Member) -> Iterator[str]:
    status = None
    try:
        status = member.status()
        evaluations = [row for row in member.rows() if row.get("kind") == "evaluation"]
    except CorruptError as error:
        yield f"unreadable ({error})"
        return
    yield "never started" if status is None else f"{status.state} at step {status.step}"
    yield _count(len(member.steps()), "checkpoint")
    if evaluations:
        last = evaluations[-1]
        accuracies = [value for key, value in last.items() if "/accuracy/" in key and value is not None]
        if accuracies:
            yield f"least accuracy {min(accuracies):.4f} at step {last['step']}"
    yield _count(len(member.saes()), "SAE")


def _state(member: Member) -> str:
    try:
        status = member.status()
    except CorruptError:
        return "unreadable"
    return "never started" if status is None else status.state


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# Whether it is whole, and what may go.


def _verify(asked: argparse.Namespace) -> int:
    cohort = find_cohort(asked.cohort, asked.root)
    looked_at, damaged = 0, 0
    for finding in verify(cohort):
        looked_at += 1
        if finding.problem is not None:
            damaged += 1
            print(f"damaged: {finding.path}: {finding.problem}")
    print(
        f"{cohort.name}: {damaged} of {looked_at} damaged" if damaged else f"{cohort.name}: {looked_at} whole"
    )
    return FAILED if damaged else DONE


def _prune(asked: argparse.Namespace) -> int:
    cohort = find_cohort(asked.cohort, asked.root)
    if asked.keep < 1:
        raise RequestError(f"--keep {asked.keep}: at least 1, from which a member goes on")
    leftovers = cohort.leftovers()
    states = [(member, step) for member in cohort.members() for step in member.older_states(asked.keep)]
    if not leftovers and not states:
        print(f"{cohort.name}: nothing to remove")
        return DONE
    for path in leftovers:
        print(f"leftover: {path.relative_to(cohort.folder)}")
    for member, step in states:
        print(f"old state: {member.name}, step {step}")
    if not asked.yes:
        print("nothing is removed yet: --yes does it")
        return DONE
    cohort.sweep()
    for member in dict.fromkeys(member for member, _ in states):
        member.prune_states(asked.keep)
    print(f"{cohort.name}: {_count(len(leftovers), 'leftover')} and {_count(len(states), 'state')} removed")
    return DONE


def _export(asked: argparse.Namespace) -> int:
    cohort, target = find_cohort(asked.cohort, asked.root), Path(asked.folder)
    if not completed(cohort):
        raise RequestError(f"{cohort.name}: no member is completed, so there is nothing to export")
    new = copy_reduced(cohort, target.absolute(), asked.steps)
    for path in new:
        print(path)
    left = [member.seed for member in cohort.members() if member not in completed(cohort)]
    if left:
        print(f"left out, not completed: seeds {', '.join(map(str, left))}")
    print(f"{target / cohort.name}: {_count(len(new), 'path')} new")
    return DONE


def _steps(text: str) -> list[int]:
    steps = [int(part) for part in text.split(",") if part]
    if any(step < 0 for step in steps):
        raise ValueError(text)
    return steps


# Their arguments.


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", nargs="?", default="cohorts", help="the folder of all cohorts (cohorts)")


def _add_cohort(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cohort", help="a cohort's name below the root, or its folder")
    parser.add_argument("--root", default="cohorts", help="the folder of all cohorts (cohorts)")


def _add_prune(parser: argparse.ArgumentParser) -> None:
    _add_cohort(parser)
    parser.add_argument("--keep", type=int, default=STATES_KEPT, help="states that each member keeps (1)")
    parser.add_argument("--yes", action="store_true", help="remove; without it only say what would go")


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_cohort(parser)
    parser.add_argument("folder", help="where the copy goes, in a folder of the cohort's name")
    parser.add_argument(
        "--steps",
        type=_steps,
        default=[0],
        help="checkpoints to keep beside the last and the best, as 0,1000 (0)",
    )


Command = tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]
COMMANDS: Mapping[str, Command] = {
    "list": ("The cohorts in a folder: members, states, steps.", _list, _add_root),
    "status": ("Where each member of a cohort stands.", _status, _add_cohort),
    "verify": (
        "Read every file of a cohort against its digest; exit status 1 if something is damaged.",
        _verify,
        _add_cohort,
    ),
    "prune": ("Remove what dead processes left, and old training states.", _prune, _add_prune),
    "export": ("Copy the completed members of a cohort, reduced.", _export, _add_export),
}
