"""Documents that notice every change of themselves: plain data with their schema version and digest."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polymorph.store.canonical_json import digest, parse_mapping, readable
from polymorph.store.errors import CorruptError, VersionError

SCHEMA = "1.0"  # a reader of 1.0 reads every 1.x; it refuses another major version


def seal(content: Mapping[str, Any]) -> bytes:
    """The bytes of a document with this content."""
    whole = {"schema": SCHEMA, **content}
    return readable({**whole, "digest": digest(whole)})


def unseal(data: bytes, path: Path) -> dict[str, Any]:
    """The content, `schema` and `digest` included, of a document that no bit was changed of."""
    document = parse_mapping(data, path)
    check_schema(document.get("schema"), path)
    content = {key: value for key, value in document.items() if key != "digest"}
    if document.get("digest") != digest(content):
        raise CorruptError(f"{path} does not have the digest that it states")
    if readable(document) != data:  # white space, case of an escape: harmless, but nobody wrote it like that
        raise CorruptError(f"{path} is not spelled as it was written")
    return document


def check_schema(schema: Any, path: Path) -> None:
    if not isinstance(schema, str) or re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,6}", schema) is None:
        raise CorruptError(f"{path} states no schema version")
    if schema.partition(".")[0] != SCHEMA.partition(".")[0]:
        raise VersionError(f"{path} is of schema version {schema}; this polymorph reads {SCHEMA}")
