"""What a published folder holds: the size and SHA-256 of every file, and facts that its maker gives."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymorph.store.canonical_json import plain, sha256
from polymorph.store.checksummed_json import seal, unseal
from polymorph.store.errors import CorruptError

MANIFEST = "manifest.json"
# What is listed can be read without running code. Pickles (.pt, .pkl, .ckpt, .bin, …) are not among them, and
# what is inside decides nothing: a safetensors header may begin with the same bytes as a pickle.
SUFFIXES = frozenset({".safetensors", ".json", ".jsonl", ".parquet"})


@dataclass(frozen=True)
class Entry:
    """One file: its size in bytes and its SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`digest` covers everything else here, so it stands for all that the folder holds."""

    schema: str
    files: Mapping[str, Entry]
    facts: Mapping[str, Any]
    digest: str


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a published file; None if nothing is."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name) is None or name == MANIFEST:
        return f"{name!r} is no name for a published file"
    if Path(name).suffix not in SUFFIXES:
        return f"{name!r} may hold a pickle or a program; published are only {', '.join(sorted(SUFFIXES))}"
    return None


def encode(files: Mapping[str, bytes], facts: Mapping[str, Any]) -> bytes:
    """The manifest of `files`; `ValueError` for a name or a fact that it cannot hold."""
    for name in files:
        if (problem := name_problem(name)) is not None:
            raise ValueError(problem)
    entries = {name: {"size": len(data), "sha256": sha256(data)} for name, data in files.items()}
    return seal({"files": entries, "facts": plain(facts)})


def decode(data: bytes, path: Path) -> Manifest:
    """The manifest that was read from `path`; `CorruptError` if it is not as `encode` makes it."""
    document = unseal(data, path)
    files, facts = document.get("files"), document.get("facts")
    if not isinstance(files, dict) or not isinstance(facts, dict):
        raise CorruptError(f"{path} lists no files or no facts")
    entries = {name: _entry(name, entry, path) for name, entry in files.items()}
    return Manifest(document["schema"], entries, facts, document["digest"])


def _entry(name: str, entry: Any, path: Path) -> Entry:
    if (problem := name_problem(name)) is not None:
        raise CorruptError(f"{path}: {problem}")
    if not isinstance(entry, dict) or type(entry.get("size")) is not int or entry["size"] < 0:
        raise CorruptError(f"{path}: the size of {name} is not a number of bytes")
    if not isinstance(entry.get("sha256"), str):
        raise CorruptError(f"{path}: {name} has no SHA-256")
    return Entry(entry["size"], entry["sha256"])
