"""C++ is compiled where there is a compiler, once, and its absence is an error of one line."""

import ctypes
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from polymorph.kernels import native
from polymorph.kernels.ragged_attention import has_kernel

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, native.COMPILERS)), reason="there is no C++ compiler"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    forget()
    yield tmp_path / "cache" / "polymorph"
    forget()


def forget() -> None:
    """As in another process."""
    native.library.cache_clear()
    native.compiler_version.cache_clear()


def source(folder: Path, body: str = "return NUMBER;") -> Path:
    path = folder / "number.cpp"
    path.write_text('extern "C" int number() { ' + body + " }")
    return path


def number(library: ctypes.CDLL) -> int:
    return int(library.number())


def test_a_source_is_compiled_with_its_macros_and_kept(tmp_path: Path, own_cache: Path) -> None:
    path = source(tmp_path)
    assert number(native.library(path, "NUMBER=3")) == 3
    assert number(native.library(path, "NUMBER=4")) == 4
    kept = sorted(own_cache.iterdir())
    assert len(kept) == 2
    times = [file.stat().st_mtime_ns for file in kept]
    forget()
    assert number(native.library(path, "NUMBER=3")) == 3
    assert [file.stat().st_mtime_ns for file in kept] == times


def test_another_source_of_the_same_name_is_another_library(tmp_path: Path) -> None:
    assert number(native.library(source(tmp_path), "NUMBER=3")) == 3
    forget()
    assert number(native.library(source(tmp_path, "return NUMBER + 10;"), "NUMBER=3")) == 13


def test_what_somebody_else_put_into_the_cache_is_not_run(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path)
    native.library(path, "NUMBER=3")
    (kept,) = own_cache.iterdir()
    before = kept.stat().st_mtime_ns
    forget()
    monkeypatch.setattr(os, "getuid", lambda: kept.stat().st_uid + 1)
    assert number(native.library(path, "NUMBER=3")) == 3
    assert kept.stat().st_mtime_ns > before


@pytest.mark.parametrize("body", ["return nothing;", "#error"])
def test_a_source_that_does_not_compile_says_why(tmp_path: Path, own_cache: Path, body: str) -> None:
    with pytest.raises(native.CompileError, match=r"fails: .*error") as caught:
        native.library(source(tmp_path, body), "NUMBER=3")
    assert "\n" not in str(caught.value)
    assert list(own_cache.iterdir()) == []


def test_without_a_compiler_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(native.CompileError, match="is on the path"):
        native.library(source(tmp_path))
    assert not has_kernel(16)


def test_a_compiler_that_is_broken_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(native.CompileError):
        native.library(source(tmp_path))
    assert not has_kernel(16)


def test_a_damaged_library_is_made_again(tmp_path: Path, own_cache: Path) -> None:
    path = source(tmp_path)
    own_cache.mkdir(parents=True)
    (own_cache / f"number-{native._key(path, ('NUMBER=3',))}.so").write_bytes(b"torn")
    assert number(native.library(path, "NUMBER=3")) == 3


def test_a_compiler_may_be_given_with_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = next(filter(None, map(shutil.which, native.COMPILERS)))
    monkeypatch.setenv("CXX", f"{found} -DOTHER=7")
    assert number(native.library(source(tmp_path, "return NUMBER + OTHER;"), "NUMBER=3")) == 10
    assert native.compiler_version()


def test_without_a_home_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(native.CompileError, match="home"):
        native.library(source(tmp_path), "NUMBER=3")
