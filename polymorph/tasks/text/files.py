"""Documents from files on disk: lines of JSON, plain texts, and tables.

Every error names the file, and the line or row where there is one. What is damaged ends the reading: no document
is left out because it could not be read.
"""

import codecs
import glob
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from polymorph.errors import RequestError

BLOCK = 1 << 20  # bytes read at once
ROWS = 1024  # of a table at once
SEPARATOR = "\f"  # between the documents of a plain text


def found(patterns: Iterable[str]) -> list[Path]:
    """The files that the paths and patterns name, each once, in the order of the patterns and sorted within one."""
    paths: dict[Path, None] = {}
    for pattern in patterns:
        matching = glob.glob(pattern, recursive=True)  # noqa: PTH207  (Path.glob takes no absolute pattern)
        there = sorted(Path(one) for one in matching) or [Path(pattern)]
        for path in there:
            if not path.is_file():
                raise RequestError(f"task.files: {pattern!r} names no file")
            _reader(path)
            paths[path] = None
    return list(paths)


def documents(paths: Iterable[Path], column: str) -> Iterator[str]:
    """The documents of all files; `RequestError` for a file that is damaged, or holds none."""
    for path in paths:
        count = 0
        with _refusing(path):
            for text in _reader(path)(path, column):
                count += 1
                yield text
        if count == 0:
            raise RequestError(f"task.files: {path} is empty: it holds no document")


def file_facts(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256: where the file lies is not among what makes it the same file."""
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"name": path.name, "size": path.stat().st_size, "sha256": digest}


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestError(f"task.files: {path} could not be read: {error.strerror or error}") from error


def _reader(path: Path) -> Callable[[Path, str], Iterator[str]]:
    for suffix, reader in READERS.items():
        if path.name.endswith(suffix):
            return reader
    raise RequestError(f"task.files: {path} is of no known kind: one of {', '.join(READERS)}")


def _lines_file(path: Path, column: str) -> Iterator[str]:
    with path.open("rb") as opened:
        yield from _from_lines(iter(lambda: opened.read(BLOCK), b""), path, column)


def _compressed_file(path: Path, column: str) -> Iterator[str]:
    with path.open("rb") as opened:
        yield from _from_lines(_decompressed(opened, path), path, column)


def _decompressed(opened: BinaryIO, path: Path) -> Iterator[bytes]:
    """All frames, one after the other; a frame that does not end is an error, which zstandard's own reader hides."""
    try:
        import zstandard
    except ImportError as error:
        raise RequestError(
            f"task.files: {path} needs a package that is not installed: pip install zstandard"
        ) from error
    frame = None
    while block := opened.read(BLOCK // 16):
        while block:
            frame = zstandard.ZstdDecompressor().decompressobj() if frame is None else frame
            try:
                yield frame.decompress(block)
            except zstandard.ZstdError as error:
                raise RequestError(f"task.files: {path} is damaged: {error}") from error
            block, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise RequestError(f"task.files: {path} is truncated: its last frame does not end")


def _from_lines(blocks: Iterator[bytes], path: Path, column: str) -> Iterator[str]:
    number, rest = 0, b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            number += 1
            if line.strip():
                yield _of_line(line, path, number, column)
    if rest.strip():
        yield _of_line(rest, path, number + 1, column)


def _of_line(line: bytes, path: Path, number: int, column: str) -> str:
    place = f"{path}, line {number}"
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise RequestError(f"task.files: {place} is not UTF-8: {error.reason}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"task.files: {place} is not JSON, or is cut off: {error}") from error
    if not isinstance(row, dict):
        raise RequestError(f"task.files: {place} holds {type(row).__name__}, not an object with {column!r}")
    if column not in row:
        raise RequestError(_no_column(place, column, row))
    return _checked(row[column], place, column)


def _no_column(place: str, column: str, known: Iterable[str]) -> str:
    return f"task.text_column={column}: {place} has only {', '.join(sorted(known)) or 'nothing'}"


def _checked(text: object, place: str, column: str) -> str:
    if not isinstance(text, str):
        raise RequestError(f"task.text_column={column}: {place} has {type(text).__name__} there, not a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"task.files: {place} holds half a character (a lone surrogate)") from error
    return text


def _text_file(path: Path, column: str) -> Iterator[str]:
    """The whole file is one document, unless form feeds divide it; blank lines do not."""
    data = path.read_bytes()
    try:
        text = codecs.decode(data, "utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(f"task.files: {path}, line {line} is not UTF-8: {error.reason}") from error
    yield from (part for part in text.split(SEPARATOR) if part.strip())


def _table(path: Path, column: str) -> Iterator[str]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if column not in names:
                raise RequestError(_no_column(str(path), column, names))
            row = 0
            for batch in table.iter_batches(batch_size=ROWS, columns=[column]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    yield _checked(text, f"{path}, row {row}", column)
    except UnicodeDecodeError as error:
        raise RequestError(f"task.files: {path} is not UTF-8 after row {row}: {error.reason}") from error
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(f"task.files: {path} is damaged, or cut off: {reason}") from error


READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".jsonl": _lines_file,
    ".jsonl.zst": _compressed_file,
    ".txt": _text_file,
    ".parquet": _table,
}
