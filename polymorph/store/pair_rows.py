"""Rows computed for a pair of members, keyed by all that decides them, published like a checkpoint.

A key is a SHA-256 of whatever the rows follow from (both digests, the metric's version, its options).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymorph.store import publication, safe_read
from polymorph.store.canonical_json import canonical, parse_mapping
from polymorph.store.errors import CorruptError
from polymorph.store.manifest import Manifest
from polymorph.store.names import check_name

ROWS = "rows.jsonl"
KEY_SHOWN = 16  # digits of the key in the folder's name; all of them are in the manifest


@dataclass(frozen=True)
class Pairs:
    """The pairs of the cohort in folder `cohort`; a label says of whom: `seed-0000--seed-0001`."""

    cohort: Path

    @property
    def folder(self) -> Path:
        return self.cohort / "pairs"

    def _path(self, key: str, label: str) -> Path:
        if re.fullmatch(r"[0-9a-f]{64}", key) is None:
            raise ValueError(f"{key!r} is not a SHA-256 in hexadecimal digits")
        return self.folder / check_name(label) / key[:KEY_SHOWN]

    def publish(
        self, key: str, label: str, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
    ) -> Manifest:
        """Publish the rows; floats come back exactly. `ValueError` for a float that is not finite."""
        data = b"".join(canonical(row) + b"\n" for row in rows)
        whole = {**facts, "key": key, "label": label}
        return publication.publish_again(self._path(key, label), {ROWS: data}, whole, self.cohort)

    def read(self, key: str, label: str) -> list[dict[str, Any]] | None:
        """The rows, None if there are none yet; `CorruptError` if they are damaged or of another key."""
        path = self._path(key, label)
        if not safe_read.exists(path):
            return None
        published = publication.read(path, self.cohort)
        for name, value in (("key", key), ("label", label)):
            if (found := published.manifest.facts.get(name)) != value:
                raise CorruptError(f"{path} holds rows of {name} {found!r}, not {value!r}")
        return _parse(published.files.get(ROWS), path / ROWS)

    def discard(self, key: str, label: str) -> None:
        """Remove the rows, damaged or not, so that they can be computed again."""
        publication.remove(self._path(key, label), self.cohort)


def _parse(data: bytes | None, path: Path) -> list[dict[str, Any]]:
    if data is None:
        raise CorruptError(f"{path} is missing")
    return [parse_mapping(line, path) for line in data.splitlines()]
