"""A prepared text in a cohort's folder: opened, verified, and what makes it the same as another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polymorph.errors import RequestError
from polymorph.store.canonical_json import digest
from polymorph.store.differences import side_by_side
from polymorph.store.errors import CorruptError
from polymorph.store.manifest import Manifest
from polymorph.store.publication import is_published
from polymorph.store.streamed_files import read_manifest, read_streamed
from polymorph.tasks.text.config import TextConfig, TextShares, TextSplits
from polymorph.tasks.text.spool import mapped
from polymorph.tasks.text.text_task import Text, Tokens
from polymorph.tasks.text.tokenizer import FILE

TEXT = "text"  # the folder below the cohort's
TOKENS, DOCUMENTS = "tokens.safetensors", "documents.safetensors"


def open_text(config: TextConfig, folder: Path) -> Text:
    """The text that was prepared in a cohort's folder, its tokens mapped and not read.

    `RequestError` if there is none, or it is of another config; `CorruptError` if a file is not as it was.
    """
    place = folder / TEXT
    _manifest(config, folder)
    manifest = read_streamed(place, folder)
    return Text(
        config,
        Tokens(
            tokens=mapped(place / TOKENS, "tokens"),
            starts=mapped(place / DOCUMENTS, "starts"),
            splits=_spans(manifest),
            vocab_size=manifest.facts["tokenizer"]["vocab_size"],
            eos=manifest.facts["tokenizer"]["eos"],
            facts=manifest.facts,
            tokenizer=place / FILE,
        ),
    )


def stated_text(stated: Mapping[str, Any], folder: Path) -> Text:
    """The text that is in a cohort's folder, if it is the one that the cohort states; `CorruptError` if not."""
    there = text_config(folder)
    own = {key: stated[key] for key in ("context", "windows") if key in stated}
    config = TextConfig(**{**there, "shares": TextShares(**there["shares"]), **own})
    if (found := text_identity(config, folder)) != dict(stated):
        raise CorruptError(
            f"{folder} is a cohort of another text than it holds: {side_by_side(stated, found)}"
        )
    return open_text(config, folder)


def text_identity(config: TextConfig, folder: Path) -> dict[str, Any]:
    """What makes two tasks of text the same: the text by its digest, and how it is cut; reads the manifest alone."""
    manifest = _manifest(config, folder)
    return {
        "name": config.name,
        "context": config.context,
        "windows": config.windows,
        "text": {
            "digest": manifest.digest,
            "tokenizer": manifest.facts["tokenizer"]["digest"],
            "vocab_size": manifest.facts["tokenizer"]["vocab_size"],
            "source": _in_short(manifest.facts["source"]),
        },
    }


def text_tokenizer(folder: Path) -> dict[str, Any] | None:
    """Name and digest of the tokenizer of the text in a cohort's folder; None if there is no text."""
    if not is_published(folder / TEXT):
        return None
    return dict(read_manifest(folder / TEXT, folder).facts["tokenizer"])


def text_config(folder: Path) -> dict[str, Any]:
    """What decided the text in a cohort's folder, as `TextConfig.deciding` gave it; `RequestError` if there is none."""
    return dict(_there(folder).facts["config"])


def _there(folder: Path) -> Manifest:
    place = folder / TEXT
    if not is_published(place):
        raise RequestError(
            f"task=text: {folder} holds no text; prepare it with the same task: "
            f"python train.py stage=text cohort.name={folder.name} …"
        )
    return read_manifest(place, folder)


def _manifest(config: TextConfig, folder: Path) -> Manifest:
    """What is there, if this config made it."""
    place, manifest = folder / TEXT, _there(folder)
    there, here = manifest.facts["config"], config.deciding()
    if digest(there) != digest(here):
        raise RequestError(
            f"{place} was prepared with another task: {side_by_side({'task': there}, {'task': here})}; "
            "give the same values, or another cohort.name"
        )
    return manifest


def _spans(manifest: Manifest) -> dict[str, tuple[int, int]]:
    spans, first = {}, 0
    for split in TextSplits:
        end = first + manifest.facts["splits"][split]["documents"]
        spans[split] = (first, end)
        first = end
    return spans


def _in_short(source: Any) -> Any:
    """The facts of the source in a few words: packages with versions, files with digests, a dataset's commit."""
    if "packages" in source:
        return [f"{one['name']} {one['version']}" for one in source["packages"]]
    if "files" in source:
        return [f"{one['name']} {one['sha256'][:16]}" for one in source["files"]]
    return f"{source['dataset']}@{source['revision']}"
