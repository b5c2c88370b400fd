"""Small texts, written by the tests that read them."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from polymorph.tasks.text.config import TextConfig, TextSplits
from polymorph.tasks.text.text_task import Text, Tokens

WORDS = [
    "the",
    "a",
    "small",
    "large",
    "tree",
    "river",
    "runs",
    "under",
    "over",
    "bridge",
    "and",
    "stone",
    "with",
    "light",
    "of",
    "morning",
    "never",
]
END = 0
EVEN = {"train": 0.4, "sae": 0.15, "evaluation": 0.15, "fit": 0.15, "eval": 0.15}


def stories(count: int, seed: int = 0) -> list[str]:
    """Distinct documents of 1 to 60 words; some letters are not ASCII."""
    drawn = random.Random(seed)
    return [
        f"Ünit {seed}.{number}: " + " ".join(drawn.choices(WORDS, k=drawn.randint(1, 60))) + " — fin.\n"
        for number in range(count)
    ]


def jsonl(texts: Iterable[Any], column: str = "text") -> bytes:
    return b"".join(json.dumps({column: text}).encode() + b"\n" for text in texts)


def config_of(folder: Path, texts: Iterable[str] | None = None, **options: Any) -> TextConfig:
    """A text of these documents, in a file that is written."""
    path = folder / "corpus.jsonl"
    if texts is not None:
        path.write_bytes(jsonl(texts))
    defaults: dict[str, Any] = {"vocab_size": 300, "context": 16, "windows": 3}
    return TextConfig(source="files", files=[str(path)], **{**defaults, **options})


def plain_text(lengths: dict[str, list[int]], seed: int = 0, **options: Any) -> Text:
    """A text in memory: documents of so many tokens, END included, every other token different from its neighbours."""
    every = [length for split in TextSplits for length in lengths.get(split, [])]
    starts = np.concatenate([[0], np.cumsum(np.array(every, dtype=np.int64))]).astype(np.int64)
    tokens = np.random.default_rng(seed).integers(1, 1000, starts[-1]).astype(np.uint16)
    tokens[starts[1:] - 1] = END
    splits, first = {}, 0
    for split in TextSplits:
        splits[split] = (first, first + len(lengths.get(split, [])))
        first = splits[split][1]
    return Text(TextConfig(**options), Tokens(tokens, starts, splits, 1000, END, {}, Path("tokenizer.json")))
