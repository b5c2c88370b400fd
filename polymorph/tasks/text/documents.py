"""Which documents are in a text, and in which split each is: decided by the document alone."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from polymorph.tasks.text.config import TextConfig, TextShares, TextSplits


@dataclass(frozen=True)
class Document:
    text: str
    split: str


@dataclass
class Counts:
    """What was read, counted while it is."""

    documents: int = 0
    """Given on, each with its split."""
    duplicates: int = 0
    """Left out: exactly the same text as a document before."""
    short: int = 0
    """Left out: fewer characters than asked for."""


def selected(texts: Iterable[str], config: TextConfig, counts: Counts) -> Iterator[Document]:
    """The documents that are kept, with their splits; memory holds 16 bytes of a hash for each of them."""
    seen: set[bytes] = set()
    for text in texts:
        if len(text) < config.min_characters:
            counts.short += 1
            continue
        digest = hashlib.sha256(f"{config.seed}\n{text}".encode()).digest()
        if digest[:16] in seen:
            counts.duplicates += 1
            continue
        seen.add(digest[:16])
        counts.documents += 1
        yield Document(text, split_of(digest, config.shares))
        if counts.documents == config.max_documents:
            return


def split_of(digest: bytes, shares: TextShares) -> str:
    """By the place of the hash in [0, 1), whose parts are the shares; other documents and their order do not matter."""
    place = int.from_bytes(digest[16:24], "big") / 2**64
    there = [split for split in TextSplits if asdict(shares)[split] > 0]
    total = 0.0
    for split in there:
        total += asdict(shares)[split]
        if place < total:
            return split
    return there[-1]  # rounding may leave the sum a little below 1
