"""Files of prompts: texts of two classes, and words that each class makes more likely."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from polymorph.errors import RequestError

Found = tuple[dict[str, list[str]], dict[str, list[str]]]
"""By class, in the order of the file: texts, and words."""
CLASSES = ("positive", "negative")


def shipped_prompts(name: str) -> Found:
    """A file that comes with the package."""
    return _parsed((files("polymorph.steering") / "shipped" / f"{name}.jsonl").read_text("utf-8"), name)


def read_prompts(name: str, given: Any) -> Found:
    """A `.jsonl` with a text and its class a line, or two files with a text a line, the positive ones first.

    A line of a `.jsonl` may have `words` instead of a text: what its class makes more likely. `RequestError` if a
    file cannot be read.
    """
    if isinstance(given, str):
        return _parsed(_text(name, given), given)
    if not isinstance(given, Sequence) or len(given) != len(CLASSES):
        raise RequestError(f"contrast {name}: prompts={given!r}: one .jsonl, or a list of two text files")
    each = {one: _text(name, str(path)).splitlines() for one, path in zip(CLASSES, given, strict=True)}
    return {one: [line.strip() for line in lines if line.strip()] for one, lines in each.items()}, {}


def _text(name: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"contrast {name}: prompts={path} cannot be read: {error}") from error


def _parsed(content: str, where: str) -> Found:
    texts: dict[str, list[str]] = {}
    words: dict[str, list[str]] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            one, text, more = _line(line, f"{where}, line {number}")
            texts.setdefault(one, []).extend([text] if text else [])
            words.setdefault(one, []).extend(more)
    return texts, words


def _line(line: str, where: str) -> tuple[str, str, list[str]]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise RequestError(f"prompts: {where} is not JSON: {error.msg}") from error
    if not isinstance(found, Mapping) or not isinstance(found.get("class"), str):
        raise RequestError(f'prompts: {where} has no class: {{"text": …, "class": …}}')
    text, words = found.get("text", ""), found.get("words", [])
    if not isinstance(text, str) or not isinstance(words, list) or bool(text.strip()) == bool(words):
        raise RequestError(f'prompts: {where} has neither one "text" nor a list of "words"')
    return found["class"], text.strip(), [str(word) for word in words]
