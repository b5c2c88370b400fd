"""Prose from the docstrings of installed packages: text that every installation already has, with a known licence.

Modules are parsed, never imported.
"""

import ast
import gc
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from polymorph.errors import RequestError
from polymorph.store.canonical_json import sha256

WORDS = 8  # a paragraph of fewer is a heading or a remark
LETTERS = 0.9  # at least this share of a paragraph is letters and spaces
NO_PROSE = (">>>", "---", "===")
ENDINGS = (".", ":", "!", "?")
PARTS = ("body", "cases", "handlers", "orelse", "finalbody")  # where statements hold statements


def documents(packages: Iterable[str]) -> Iterator[str]:
    """One document a module that has any prose, modules in the order of their paths; no paragraph comes twice.

    A paragraph in which an escape names half a character, which UTF-8 cannot spell, is no prose.
    """
    seen: set[str] = set()
    for package in packages:
        for module in modules(package):
            fresh = []
            for paragraph in prose(module):
                if (key := sha256(paragraph.encode())) not in seen:
                    seen.add(key)
                    fresh.append(paragraph)
            if fresh:
                yield "\n\n".join(fresh)


def modules(package: str) -> list[Path]:
    """The package's own source files, sorted; `RequestError` if it is not installed, or has none."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or (spec.origin is None and spec.submodule_search_locations is None):
        raise RequestError(
            f"task.packages: {package!r} is not installed here; leave it out, or: "
            f"pip install {package.replace('_', '-')}"
        )
    if not (paths := _sources(spec)):
        raise RequestError(f"task.packages: {package!r} has no source files here; leave it out")
    return paths


def _sources(spec: ModuleSpec) -> list[Path]:
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)] if spec.origin is not None and spec.origin.endswith(".py") else []
    roots = sorted(Path(root) for root in spec.submodule_search_locations)
    return [
        path for root in roots for path in sorted(root.rglob("*.py"), key=Path.as_posix) if path.is_file()
    ]


def prose(module: Path) -> Iterator[str]:
    """The paragraphs of a module's docstrings that are prose; none if Python cannot parse it."""
    tree = _parsed(module)
    for docstring in _docstrings(tree) if tree is not None else ():
        for block in docstring.split("\n\n"):
            paragraph = " ".join(block.split())
            if is_prose(paragraph):
                yield paragraph


def _parsed(module: Path) -> ast.Module | None:
    collecting = gc.isenabled()
    gc.disable()  # a tree is a million objects without a cycle; looking for cycles takes longer than parsing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in other people's code
            return ast.parse(module.read_bytes())
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # what a parser says of files for other Pythons
        return None
    finally:
        if collecting:
            gc.enable()


def _docstrings(tree: ast.Module) -> Iterator[str]:
    """In the order of the source; only statements are gone through, for expressions hold none."""
    waiting: list[ast.AST] = [tree]  # not recursive: a long chain of elif is deep
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
        waiting += [one for part in reversed(PARTS) for one in reversed(getattr(node, part, ()))]


def is_prose(paragraph: str) -> bool:
    if not paragraph[:1].isupper() or not paragraph.endswith(ENDINGS) or len(paragraph.split()) < WORDS:
        return False
    if any(mark in paragraph for mark in NO_PROSE) or not paragraph.isprintable():
        return False
    return sum(one.isalpha() or one == " " for one in paragraph) >= LETTERS * len(paragraph)


def package_facts(packages: Iterable[str]) -> list[dict[str, Any]]:
    """Name, version and licence of each package, None where it does not say."""
    return [_facts(package) for package in packages]


def _facts(package: str) -> dict[str, Any]:
    try:
        metadata = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return {"name": package, "version": None, "licence": None}
    return {"name": package, "version": metadata["Version"], "licence": _licence(metadata)}


def _licence(metadata: Any) -> str | None:
    if expression := metadata.get("License-Expression"):
        return str(expression)
    named = [line.rpartition("::")[2].strip() for line in metadata.get_all("Classifier") or []]
    kinds = [one for one in metadata.get_all("Classifier") or [] if one.startswith("License ::")]
    if kinds:
        return ", ".join(name for name in named if any(kind.endswith(name) for kind in kinds))
    stated = (metadata.get("License") or "").strip()
    return stated.splitlines()[0][:100] if stated else None  # some packages put the whole licence here
