"""Trainings killed at any writing call of the store after a step, then run again; `during` is patched meanwhile."""

import os
from pathlib import Path
from typing import Any

from cohorts import after_step, cohort_in, end_of, exit_status, published, start_child, trained

from polymorph.cli import command
from polymorph.store import files
from polymorph.training.module import StackModule

KILLED = 9


def calls_of(root: Path, step: int, during: Any, *overrides: str) -> int:
    """How many calls the store makes from this step on, in a child that reports through its folder."""
    counted = root / "calls"

    def action() -> None:
        made = 0

        def counting(call: Any) -> Any:
            def counted_call(*arguments: Any) -> Any:
                nonlocal made
                made += 1
                return call(*arguments)

            return counted_call

        def begin(module: StackModule) -> None:
            for name in WRITES:
                setattr(files, name, counting(getattr(files, name)))

        with after_step(step, begin), during:
            trained(root / "counted", *overrides)
        counted.write_text(str(made))

    assert end_of(start_child(action)) == 0
    return int(counted.read_text())


WRITES = ("make_folder", "open_new", "rename", "replace", "link", "open_append", "remove_tree")


def killed_at_call(root: Path, step: int, number: int, during: Any, *overrides: str) -> None:
    """Killed right before the store's writing call `number` after this step."""

    def action() -> None:
        left = number

        def deadly(call: Any) -> Any:
            def perhaps(*arguments: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(KILLED)
                return call(*arguments)

            return perhaps

        def begin(module: StackModule) -> None:
            for name in WRITES:
                setattr(files, name, deadly(getattr(files, name)))

        with after_step(step, begin), during:
            trained(root, *overrides)

    assert end_of(start_child(action)) == KILLED


def check_kills(root: Path, step: int, during: Any, numbers: range, *overrides: str) -> None:
    with during:
        expected = published(trained(root / "whole", *overrides))
    for number in numbers:
        own = root / f"{number}"
        killed_at_call(own, step, number, during, *overrides)
        with during:
            assert exit_status(own, *overrides) == command.DONE
        assert published(cohort_in(own)) == expected, f"killed before writing call {number} after step {step}"
