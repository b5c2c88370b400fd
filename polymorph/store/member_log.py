"""A member's own log: one JSON mapping a line, only ever appended to."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from polymorph.store import durable, safe_read
from polymorph.store.canonical_json import canonical, parse_mapping
from polymorph.store.errors import writing

LARGEST_ROWS = 1 << 28  # bytes of the whole log


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row; a number that is not finite becomes null, for JSON has no word for it."""
    with writing(path):
        durable.append_line(path, canonical(finite(row)))


def finite(value: Any) -> Any:
    """A copy in which every float that is not finite is None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Every whole row in order; a line that a kill left torn is none. `CorruptError` for any other line."""
    if not safe_read.exists(path):
        return []
    return [
        parse_mapping(line, path.with_name(f"{path.name}:{number}"))
        for number, line in _whole_lines(safe_read.read_whole(path, LARGEST_ROWS))
    ]


def _whole_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    *lines, _ = data.split(b"\n")  # after the last newline is a torn line, or nothing
    torn = durable.CANCEL.rstrip(b"\n")
    return ((number, line) for number, line in enumerate(lines, 1) if not line.endswith(torn))
