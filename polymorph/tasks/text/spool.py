"""What is kept on disk while a text is prepared: documents for a second reading, and the tokens of each split."""

import json
import struct
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from polymorph.store.errors import reading, writing
from polymorph.tasks.text.config import TextSplits
from polymorph.tasks.text.documents import Document

BLOCK = 1 << 20  # bytes
RECORD = struct.Struct("<BQ")  # the number of the split, and the bytes of the text after it
SAFETENSORS = {"<u2": "U16", "<u4": "U32", "<i8": "I64"}


class DocumentSpool:
    """Documents on disk, to be read as often as needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self, documents: Iterable[Document]) -> None:
        with writing(self._path):
            opened = self._path.open("xb")
        with opened:
            for document in documents:
                data = document.text.encode()
                with writing(self._path):
                    opened.write(RECORD.pack(TextSplits.index(document.split), len(data)) + data)

    def __iter__(self) -> Iterator[Document]:
        with reading(self._path), self._path.open("rb") as opened:
            while head := opened.read(RECORD.size):
                split, size = RECORD.unpack(head)
                yield Document(opened.read(size).decode(), TextSplits[split])


class TokenSpool:
    """The tokens of each split in a file of its own; in memory are the documents' lengths and the tokens' counts."""

    def __init__(self, folder: Path, dtype: np.dtype, vocab_size: int) -> None:
        self.dtype = dtype
        self.lengths = {split: array("q") for split in TextSplits}
        self.counts = np.zeros(vocab_size, dtype=np.int64)
        """How often each token is in the training split."""
        self.documents = self.tokens = self.characters = 0
        self._paths = {split: folder / f"{split}.tokens" for split in TextSplits}
        self._opened = {split: path.open("xb") for split, path in self._paths.items()}

    def add(self, document: Document, tokens: np.ndarray) -> None:
        with writing(self._paths[document.split]):
            self._opened[document.split].write(tokens.tobytes())
        self.lengths[document.split].append(len(tokens))
        self.documents += 1
        self.tokens += len(tokens)
        self.characters += len(document.text)
        if document.split == "train":
            np.add.at(self.counts, tokens, 1)

    def close(self) -> None:
        for split, opened in self._opened.items():
            with writing(self._paths[split]):
                opened.close()

    def blocks(self) -> Iterator[bytes]:
        """All tokens, split after split, as the bytes of a safetensors file with one row `tokens`."""
        yield header("tokens", self.dtype, self.tokens)
        for path in self._paths.values():
            with reading(path), path.open("rb") as opened:
                while block := opened.read(BLOCK):
                    yield block

    def starts(self) -> np.ndarray:
        """Where each document begins, and where the last one ends."""
        lengths = np.concatenate([np.asarray(one, dtype=np.int64) for one in self.lengths.values()])
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])

    def entropy(self) -> float | None:
        """Of a token of the training split by its frequency alone, in nats; None if there is none."""
        total = self.counts.sum()
        if total == 0:
            return None
        shares = self.counts[self.counts > 0] / total
        return float(-(shares * np.log(shares)).sum())


def header(name: str, dtype: np.dtype, length: int) -> bytes:
    """How a safetensors file with one row begins; the row follows, at a multiple of 8 bytes."""
    row = {
        "dtype": SAFETENSORS[dtype.str],
        "shape": [length],
        "data_offsets": [0, length * dtype.itemsize],
    }
    text = json.dumps({name: row}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def mapped(path: Path, name: str) -> np.ndarray:
    """The row of a file that begins so, mapped read-only: nothing is read before it is used."""
    with reading(path), path.open("rb") as opened:
        (size,) = struct.unpack("<Q", opened.read(8))
        row = json.loads(opened.read(size))[name]
    kind = next(one for one, stated in SAFETENSORS.items() if stated == row["dtype"])
    if row["shape"] == [0]:
        return np.zeros(0, dtype=kind)  # an empty row cannot be mapped
    return np.memmap(path, dtype=kind, mode="r", offset=8 + size, shape=tuple(row["shape"]))
