"""From a source to a prepared text: documents are read once, told apart, turned into tokens, and published whole."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from polymorph.errors import RequestError
from polymorph.progress import SILENT, Bar, Progress
from polymorph.store import safe_read
from polymorph.store.errors import writing
from polymorph.store.leftovers import sweep
from polymorph.store.manifest import Entry
from polymorph.store.publication import is_published
from polymorph.store.streamed_files import Stream, draft_below, publish_draft
from polymorph.tasks.text import sources
from polymorph.tasks.text.config import TRAINED, TextConfig
from polymorph.tasks.text.documents import Counts, Document, selected
from polymorph.tasks.text.sources import Source
from polymorph.tasks.text.spool import DocumentSpool, TokenSpool, header
from polymorph.tasks.text.stored import DOCUMENTS, TEXT, TOKENS, open_text
from polymorph.tasks.text.text_task import Text
from polymorph.tasks.text.tokenizer import Encoder, loaded, tokenizer_digest, trained

BATCH = 1 << 20  # characters that are encoded together
PATIENCE = 15.0  # seconds between two lines of progress

Say = Callable[[str], None]


def prepare(config: TextConfig, folder: Path, say: Say, progress: Progress = SILENT) -> Text:
    """The text of a cohort's folder, made if it is not there; nothing is done if the same config made what is there.

    `RequestError` if the source or the tokenizer is not to be had, or another config made what is there.
    """
    if not is_published(folder / TEXT):
        with _leaving_no_empty(folder):
            _make(config, folder, say, progress)
    return open_text(config, folder)


def _make(config: TextConfig, folder: Path, say: Say, progress: Progress) -> None:
    began = time.monotonic()
    source = sources.opened(config)
    encoder = None if config.tokenizer == TRAINED else loaded(config.tokenizer)
    sweep(folder)
    say(f"text: reading {source.name}")
    counts = Counts()
    with (
        draft_below(folder) as aside,
        draft_below(folder) as draft,
        progress.bar("documents", None) as bar,
    ):
        documents: Iterable[Document] = _told(selected(source.documents(), config, counts), counts, say, bar)
        if encoder is None:
            spool = DocumentSpool(aside / "documents")
            spool.fill(documents)
            documents, encoder = spool, _trained(config, spool, say)
        tokens = _encoded(config, documents, encoder, aside)
        facts = _facts(config, source, encoder, counts, tokens)
        publish_draft(draft, _written(draft, tokens, encoder), facts, folder / TEXT, folder)
    say(
        f"text: {tokens.documents:,} documents, {tokens.tokens:,} tokens from {source.name}; "
        f"{time.monotonic() - began:.0f} s"
    )


def _told(documents: Iterable[Document], counts: Counts, say: Say, bar: Bar) -> Iterator[Document]:
    """The documents, with a line now and then about how many they are."""
    told = time.monotonic()
    for document in documents:
        yield document
        if time.monotonic() - told > PATIENCE:
            told = time.monotonic()
            say(f"text: {counts.documents:,} documents so far")
        bar.update(counts.documents)


def _trained(config: TextConfig, documents: Iterable[Document], say: Say) -> Encoder:
    count = 0

    def training() -> Iterator[str]:
        nonlocal count
        for document in documents:
            if document.split == "train":
                count += 1
                yield document.text

    encoder = trained(training(), config.vocab_size)
    if count == 0:
        raise RequestError(
            f"task.tokenizer={TRAINED}: no document is in the training split; give more text, or a tokenizer"
        )
    say(f"text: a tokenizer of {encoder.vocab_size:,} tokens, trained on {count:,} documents")
    return encoder


def _encoded(config: TextConfig, documents: Iterable[Document], encoder: Encoder, aside: Path) -> TokenSpool:
    with writing(aside):
        spool = TokenSpool(aside, encoder.dtype, encoder.vocab_size)
    try:
        for document, tokens in _tokenized(documents, encoder):
            if len(tokens) > 0:  # some tokenizers have none for white space
                spool.add(document, tokens)
            if config.max_tokens is not None and spool.tokens >= config.max_tokens:
                break
    finally:
        spool.close()
    if spool.documents == 0:
        raise RequestError(
            f"task.source={config.source}: there is no document of at least "
            f"task.min_characters={config.min_characters}"
        )
    return spool


def _tokenized(documents: Iterable[Document], encoder: Encoder) -> Iterator[tuple[Document, np.ndarray]]:
    for batch in _batches(documents):
        yield from zip(batch, encoder.encode([one.text for one in batch]), strict=True)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _facts(
    config: TextConfig, source: Source, encoder: Encoder, counts: Counts, tokens: TokenSpool
) -> dict[str, Any]:
    return {
        "config": config.deciding(),
        "source": source.facts(),
        "tokenizer": {
            "name": config.tokenizer,
            "digest": tokenizer_digest(encoder.tokenizer),
            "eos": encoder.eos,
            "vocab_size": encoder.vocab_size,
        },
        "dtype": encoder.dtype.name,
        "documents": tokens.documents,
        "tokens": tokens.tokens,
        "characters": tokens.characters,
        "splits": {
            split: {"documents": len(lengths), "tokens": sum(lengths)}
            for split, lengths in tokens.lengths.items()
        },
        "left_out": {"duplicates": counts.duplicates, "short": counts.short},
        "unigram_entropy": tokens.entropy(),
    }


def _written(draft: Path, tokens: TokenSpool, encoder: Encoder) -> dict[str, Entry]:
    """The files of the draft, and what each holds."""
    starts = tokens.starts()
    contents: dict[str, Iterable[bytes]] = {
        TOKENS: tokens.blocks(),
        DOCUMENTS: (header("starts", starts.dtype, len(starts)), starts.tobytes()),
        **{name: (data,) for name, data in encoder.files().items()},
    }
    entries = {}
    for name, blocks in contents.items():
        with Stream(draft / name) as stream:
            for block in blocks:
                stream.write(block)
        assert stream.entry is not None
        entries[name] = stream.entry
    return entries


@contextmanager
def _leaving_no_empty(folder: Path) -> Iterator[None]:
    """If it fails, folders that were missing before and hold nothing go again."""
    missing = [one for one in (folder, *folder.parents) if not safe_read.exists(one)]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one that holds something stays, and all above it
            for one in missing:
                one.rmdir()
        raise
