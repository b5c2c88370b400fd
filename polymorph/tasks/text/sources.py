"""Where documents come from: docstrings, files, or the hub; opened, so that a wrong request is seen at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymorph.tasks.text import docstrings, files, hub
from polymorph.tasks.text.config import TRAINED, TextConfig
from polymorph.tasks.text.stored import text_identity, text_tokenizer
from polymorph.tasks.text.tokenizer import loaded


@dataclass(frozen=True)
class Source:
    """Documents, in an order that is always the same."""

    name: str
    documents: Callable[[], Iterator[str]]
    facts: Callable[[], dict[str, Any]]
    """What they are truly from; without times and places, so that the same source has the same facts."""


def opened(config: TextConfig) -> Source:
    """The source of the config; `RequestError` if it is not there."""
    if config.source == "docstrings":
        return _docstrings(config.packages)
    return _files(config) if config.source == "files" else _hub(config)


def _docstrings(packages: list[str]) -> Source:
    for package in packages:
        docstrings.modules(package)
    return Source(
        name=f"docstrings of {', '.join(packages)}",
        documents=lambda: docstrings.documents(packages),
        facts=lambda: {"packages": docstrings.package_facts(packages)},
    )


def _files(config: TextConfig) -> Source:
    paths = files.found(config.files)
    return Source(
        name=f"{len(paths)} files" if len(paths) > 1 else paths[0].name,
        documents=lambda: files.documents(paths, config.text_column),
        facts=lambda: {"files": [files.file_facts(path) for path in paths]},
    )


def _hub(config: TextConfig) -> Source:
    documents, facts = hub.open_dataset(config)
    return Source(name=f"{facts['dataset']} at {facts['revision']}", documents=documents, facts=lambda: facts)


def check_source(config: TextConfig, folder: Path) -> None:
    """`RequestError` if the text could not be prepared, or what is prepared is of other options; writes nothing."""
    if text_tokenizer(folder) is not None:
        text_identity(config, folder)
        return
    if config.source != "hub":  # the hub is asked once, when it is read
        opened(config)
    if config.tokenizer not in (TRAINED, "model"):
        loaded(config.tokenizer)
