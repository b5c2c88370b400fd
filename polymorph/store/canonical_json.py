"""Plain data (what JSON can say): read within limits, written one way only, and its digest.

Nothing here is interpolated or instantiated: `${oc.env:HOME}` is a text like any other.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polymorph.store.errors import CorruptError

DEPTH = 64  # levels of lists and mappings
LARGEST = 1 << 22  # bytes of one document


def plain(value: Any, depth: int = DEPTH) -> Any:
    """A copy of `value` as JSON gives it back (tuples as lists); `ValueError` where it cannot."""
    if depth < 0:
        raise ValueError(f"nested more than {DEPTH} deep")
    if isinstance(value, Mapping):
        return {_key(key): plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth - 1) for item in value]
    return _scalar(value)


def _key(key: Any) -> str:
    if type(key) is not str:
        raise ValueError(f"the key {key!r} is not a text")
    return key


def _scalar(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} has no place in JSON")
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is not None:
        raise ValueError(f"{value!r} is not plain data")
    return None


def canonical(value: Any) -> bytes:
    """The one spelling of plain data: equal values give equal bytes, and floats come back exactly."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def readable(value: Any) -> bytes:
    """As `canonical`, for people: indented, with a newline at the end."""
    return json.dumps(plain(value), sort_keys=True, indent=2, allow_nan=False).encode() + b"\n"


def digest(value: Any) -> str:
    """SHA-256 of the canonical spelling, 64 hexadecimal digits."""
    return sha256(canonical(value))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parse(data: bytes, path: Path) -> Any:
    """The plain data spelled by `data`, which was read from `path`; `CorruptError` if it is not JSON."""
    if len(data) > LARGEST:
        raise CorruptError(f"{path} has {len(data)} bytes of JSON; at most {LARGEST} are read")
    try:
        # Both hooks refuse what Python's parser lets pass; `plain` refuses 1e999 and deep nesting.
        value = json.loads(data.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
        return plain(value)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is not JSON of ours: {error}") from error


def parse_mapping(data: bytes, path: Path) -> dict[str, Any]:
    value = parse(data, path)
    if not isinstance(value, dict):
        raise CorruptError(f"{path} holds {type(value).__name__}, not a mapping")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} has no place in JSON")
