"""Faults at chosen file-system calls of the store, and what there is to see afterwards."""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from polymorph.store import files

IDENTITY = {"architecture": {"d_model": 64}, "task": {"name": "dyck3"}, "probe": {"seed": 0, "fit": 1024}}
KILLED, CRASHED = 9, 77
CALLS = [name for name, value in vars(files).items() if inspect.isfunction(value)]


def weights_of(number: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return {"w": torch.randn(6, 4, generator=generator), "b": torch.randn(4, generator=generator)}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@contextmanager
def replaced_calls(replacement: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    patches = {name: replacement(name, getattr(files, name)) for name in CALLS}
    with mock.patch.multiple(files, **patches):
        yield


def calls_of(action: Callable[[], Any]) -> list[str]:
    """The names of the file-system calls that `action` makes, in order."""
    made: list[str] = []

    def recording(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*arguments: Any) -> Any:
            made.append(name)
            return call(*arguments)

        return recorded

    with replaced_calls(recording):
        action()
    return made


@contextmanager
def at_call(index: int, fault: Callable[[Callable[..., Any], tuple[Any, ...]], Any]) -> Iterator[None]:
    """The call number `index` is handed to `fault` instead of being made."""
    count = iter(range(1 << 30))

    def faulty(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: fault(call, arguments) if next(count) == index else call(*arguments)

    with replaced_calls(faulty):
        yield


def in_child(action: Callable[[], Any]) -> int:
    """The exit status of a forked process that does `action`: 0, or `CRASHED` if it raised."""
    child = start_child(action)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start_child(action: Callable[[], Any]) -> int:
    child = os.fork()
    if child:
        return child
    status = CRASHED
    try:
        action()
        status = 0
    finally:
        os._exit(status)


def kill_before(call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os._exit(KILLED)


def kill_after(call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        call(*arguments)
    finally:  # a call that finds nothing raises, and is made all the same
        os._exit(KILLED)


def kill_amid(call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Of a write: half of the bytes arrive. Of anything else the same as before it."""
    if call.__name__ == "write":
        call(arguments[0], arguments[1][: len(arguments[1]) // 2])
    os._exit(KILLED)


def failing(number: int) -> Callable[[Callable[..., Any], tuple[Any, ...]], None]:
    def fail(call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if call.__name__ == "close":  # the system closes even when it reports an error
            call(*arguments)
        raise OSError(number, os.strerror(number))

    return fail


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its bytes."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def drafts(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".draft*")]
