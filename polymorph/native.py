"""C++ beside the modules that use it, compiled by this machine's compiler once and kept in the user's cache."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

COMPILERS = ("g++", "clang++", "c++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
PREFERRED = (("-mprefer-vector-width=512", "-fopenmp"), ("-fopenmp",), ())
"""Options that not every compiler knows, the best first: vectors as wide as the processor has them, and threads."""


class CompileError(Exception):
    """The source cannot be compiled here; the message says why, in one line."""


@cache
def library(source: Path, *defines: str) -> ctypes.CDLL:
    """The compiled source, with macros such as `D_HEAD=16`; `CompileError` without a compiler, or if it fails.

    The first time takes one to two seconds. The key of the cache is everything that decides the machine code.
    """
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise CompileError(f"none of {', '.join(COMPILERS)} is on the path")
    path = _cache() / f"{source.stem}-{_key(compiler, source, defines)}.so"
    try:
        if not (path.is_file() and path.stat().st_uid == os.getuid()):  # nobody else's code is run
            _compile(compiler, source, defines, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        raise CompileError(f"{compiler}: {error}") from error


def _compile(compiler: str, source: Path, defines: tuple[str, ...], path: Path) -> None:
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
    raise CompileError(f"{compiler} fails: {said}")


def _commands(compiler: str, source: Path, defines: tuple[str, ...], target: Path) -> Iterator[list[str]]:
    for more in PREFERRED:
        macros = [f"-D{define}" for define in defines]
        yield [compiler, *FLAGS, *more, *macros, str(source), "-o", str(target)]


def _key(compiler: str, source: Path, defines: tuple[str, ...]) -> str:
    try:
        version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CompileError(f"{compiler}: {error}") from error
    processor = f"{sorted(torch.cpu.get_capabilities().items())} {platform.machine()}"
    options = repr((FLAGS, PREFERRED, defines, processor))
    return hashlib.sha256(b"\0".join((source.read_bytes(), version, options.encode()))).hexdigest()[:24]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polymorph"
