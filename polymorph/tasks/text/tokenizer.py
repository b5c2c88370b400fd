"""The tokenizer of a text: trained on it, or one that exists; and what makes two of them the same."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from polymorph.errors import RequestError
from polymorph.store.canonical_json import digest, readable
from polymorph.tasks.text.hub import commit_of, fetching

END, END_ID = "<|endoftext|>", 0  # of a document, in a tokenizer that is trained here
FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"  # what AutoTokenizer looks for in a folder
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class Encoder:
    """Texts to tokens: what a text spells out, an end of a document included, is spelled out in tokens too."""

    tokenizer: Tokenizer
    eos: int
    special: Mapping[str, str]
    """The special tokens that it knows, by the names that AutoTokenizer gives them."""

    @property
    def vocab_size(self) -> int:
        return max(self.tokenizer.get_vocab().values()) + 1

    @property
    def dtype(self) -> np.dtype:
        """Of a token on disk, little endian."""
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """The tokens of each text with the end after them; an empty array for a text that has no token."""
        found = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array([*one.ids, self.eos] if one.ids else [], dtype=self.dtype) for one in found]

    def files(self) -> dict[str, bytes]:
        """What `AutoTokenizer.from_pretrained` opens as this tokenizer."""
        settings = {
            **self.special,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "split_special_tokens": True,
        }
        return {FILE: _plain(self.tokenizer).to_str().encode(), SETTINGS: readable(settings)}


def trained(texts: Iterable[str], vocab_size: int) -> Encoder:
    """A byte-level BPE of at most so many tokens; the end of a document is token 0. The same texts give the same."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Encoder(_plain(tokenizer), END_ID, {"eos_token": END})


def loaded(name: str) -> Encoder:
    """The tokenizer of a local folder, or of a hub repository[@revision]; `RequestError` if it is of no use here."""
    tokenizer = _opened(name)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise RequestError(f"task.tokenizer={name} is not a fast tokenizer: it has no {FILE}")
    if tokenizer.eos_token_id is None:
        raise RequestError(f"task.tokenizer={name} has no token for the end of a document (eos_token)")
    special = {key: str(value) for key in SPECIAL if (value := getattr(tokenizer, key, None)) is not None}
    return Encoder(_plain(backend), int(tokenizer.eos_token_id), special)


def has_tokenizer(folder: Path) -> bool:
    """Whether there is one in a local folder: of its own kind, or of one that a fast one is made of."""
    return any((folder / name).is_file() for name in (FILE, "vocab.json", "tokenizer.model", "vocab.txt"))


def _opened(name: str) -> Any:
    from transformers import AutoTokenizer  # takes seconds, and a trained tokenizer needs none

    if Path(name).exists():
        if not has_tokenizer(Path(name)):  # transformers would make an empty one up
            raise RequestError(f"task.tokenizer={name} holds no tokenizer: a folder with a {FILE}")
        repository, revision, fetch = name, None, f"it must be a folder with a {FILE}"
        commit = None
    else:
        repository, _, after = name.partition("@")
        revision = after or None
        commit = commit_of(repository, revision, "model", "task.tokenizer")
        fetch = f"where there is a network: {fetching(repository, revision, 'model')}"
    try:
        return AutoTokenizer.from_pretrained(
            repository,
            revision=commit or revision,
            local_files_only=commit is None,
            trust_remote_code=False,
        )
    except Exception as error:  # whatever a parser or the cache says, there is no such tokenizer here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(f"task.tokenizer={name} cannot be opened; {fetch} ({reason})") from error


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of all that decides which tokens a text has; of a tokenizer of `transformers` or `tokenizers`.

    What is put around a text (`post_processor`), and how one is cut and padded, are settings of a call: they do
    not count.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    whole = json.loads(backend.to_str())
    return digest({**whole, "post_processor": None, "truncation": None, "padding": None})


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that neither cuts nor pads, and knows no special token in a text."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = True
    return copy
