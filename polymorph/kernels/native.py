"""C++ beside the modules that use it, compiled by this machine's compiler once and kept in the user's cache."""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

COMPILERS = ("g++", "clang++", "c++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
PREFERRED = (("-mprefer-vector-width=512", "-fopenmp"), ("-fopenmp",), ())
"""Options that not every compiler knows, the best first: vectors as wide as the processor has them, and threads."""


class CompileError(Exception):
    """The source cannot be compiled here; the message says why, in one line."""


@cache
def library(source: Path, *defines: str) -> ctypes.CDLL:
    """The compiled source, with macros such as `D_HEAD=16`; `CompileError` without a compiler, or if it fails.

    The first time takes one to two seconds. The cache knows the source, the macros, the compiler and the processor.
    """
    compiler = _compiler()
    try:
        path = _cache() / f"{source.stem}-{_key(source, defines)}.so"
        if path.is_file() and path.stat().st_uid == os.getuid():  # nobody else's code is run
            with contextlib.suppress(OSError):  # one that is damaged is made again
                return ctypes.CDLL(str(path))
        _compile(compiler, source, defines, path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # there may be no home for a cache
        raise CompileError(f"{compiler[-1]}: {error}") from error


@cache
def compiler_version() -> str:
    """The first line that the compiler says of its version; nothing without one."""
    try:
        done = subprocess.run(
            [*_compiler(), "--version"], check=True, capture_output=True, text=True, timeout=30
        )
    except (CompileError, OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("\n")[0].strip()


def _compiler() -> list[str]:
    """The command, which `CXX` may give with arguments of its own."""
    if given := shlex.split(os.environ.get("CXX", "")):
        return given
    if (found := next(filter(None, map(shutil.which, COMPILERS)), None)) is None:
        raise CompileError(f"none of {', '.join(COMPILERS)} is on the path")
    return [found]


def _compile(compiler: list[str], source: Path, defines: tuple[str, ...], path: Path) -> None:
    """Write the library under another name first: whoever finds the name finds all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = ""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        for command in _commands(compiler, source, defines, made):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode == 0:
                made.replace(path)
                return
            said = " ".join(done.stderr.split())[:300]
    raise CompileError(f"{compiler[-1]} fails: {said}")


def _commands(
    compiler: list[str], source: Path, defines: tuple[str, ...], target: Path
) -> Iterator[list[str]]:
    for more in PREFERRED:
        macros = [f"-D{define}" for define in defines]
        yield [*compiler, *FLAGS, *more, *macros, str(source), "-o", str(target)]


def _key(source: Path, defines: tuple[str, ...]) -> str:
    compiler = (*_compiler(), compiler_version())
    options = repr((FLAGS, PREFERRED, defines, compiler, _processor()))
    return hashlib.sha256(b"\0".join((source.read_bytes(), options.encode()))).hexdigest()[:24]


def _processor() -> tuple[str, ...]:
    """What `-march=native` goes by, as far as the system tells: a cache may be shared by several machines."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(errors="replace").splitlines() if described.is_file() else []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return (platform.machine(), platform.processor(), *sorted(told))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polymorph"
