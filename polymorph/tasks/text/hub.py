"""The Hugging Face hub: datasets read as a stream, and whether it can be reached at all.

Where it cannot, only what `hf download` has fetched whole is read; nothing stands in for what is missing.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
from huggingface_hub import errors

from polymorph.errors import RequestError, RunError
from polymorph.tasks.text.config import TextConfig

SECONDS = 10  # to wait for the hub's first answer; its libraries would try for a minute
TRUE = {"1", "on", "yes", "true"}

Kind = Literal["dataset", "model"]


def is_offline() -> bool:
    """Whether the user says so: HF_HUB_OFFLINE, or HF_DATASETS_OFFLINE."""
    stated = any(os.environ.get(key, "").lower() in TRUE for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))
    return stated or huggingface_hub.is_offline_mode()


def commit_of(repository: str, revision: str | None, kind: Kind, key: str) -> str | None:
    """The commit that the revision names, None if the hub cannot be asked; `RequestError` if there is no such thing."""
    if is_offline():
        return None
    try:
        found = huggingface_hub.HfApi().repo_info(
            repository, revision=revision, repo_type=kind, timeout=SECONDS
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RequestError(
            f"{key}: the hub has no {kind} {named(repository, revision)} that can be read: {reason}"
        ) from error
    except (OSError, errors.HTTPError):
        return None
    return found.sha


def named(repository: str, revision: str | None) -> str:
    return repository if revision is None else f"{repository}@{revision}"


def fetching(repository: str, revision: str | None, kind: Kind) -> str:
    """The command that fetches it."""
    parts = ["hf download"]
    parts += ["--repo-type dataset"] if kind == "dataset" else []
    parts += [repository]
    parts += [f"--revision {revision}"] if revision is not None else []
    parts += (
        ["--include '*.json' --include '*.txt' --include '*.model'"] if kind == "model" else []
    )  # a tokenizer, not the weights
    return " ".join(parts)


def open_dataset(config: TextConfig) -> tuple[Callable[[], Iterator[str]], dict[str, Any]]:
    """What reads the dataset's documents, and its facts; the commit is among them."""
    commit = commit_of(config.dataset, config.dataset_revision, "dataset", "task.dataset")
    if commit is not None:
        place, revision = config.dataset, commit
    else:
        folder = _fetched(config)
        place, revision, commit = str(folder), None, folder.name
    facts = {
        "dataset": config.dataset,
        "revision": commit,
        "config": config.dataset_config,
        "split": config.dataset_split,
    }
    return lambda: _documents(config, place, revision), facts


def _fetched(config: TextConfig) -> Path:
    """The folder into which `hf download` fetched the whole dataset."""
    name, revision = config.dataset, config.dataset_revision
    try:
        folder = huggingface_hub.snapshot_download(
            name, repo_type="dataset", revision=revision, local_files_only=True
        )
        # Where only some files were fetched one by one, nothing says what is missing.
        huggingface_hub.get_cached_repo_tree(name, repo_type="dataset", revision=revision)
    except (OSError, ValueError, errors.CachedRepoTreeNotFoundError) as error:
        raise RequestError(
            f"task.dataset={named(name, revision)}: the hub cannot be reached, and the dataset was not fetched "
            f"whole; where there is a network: {fetching(name, revision, 'dataset')}"
        ) from error
    return Path(folder)


def _documents(config: TextConfig, place: str, revision: str | None) -> Iterator[str]:
    import datasets  # type: ignore[import-untyped]  # takes seconds, and only this source needs it

    name = named(config.dataset, config.dataset_revision)
    try:
        stream = datasets.load_dataset(
            place,
            name=config.dataset_config,
            revision=revision,
            split=config.dataset_split,
            streaming=True,
        )
    except ImportError as error:
        raise RequestError(f"task.dataset={name}: {error}") from error
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RequestError(f"task.dataset={name} cannot be opened: {reason}") from error
    rows = iter(stream)
    count = 0
    while (row := _next(rows, name, count)) is not None:
        count += 1
        yield _text(row, config.text_column, f"{name}, row {count}")
    if count == 0:
        raise RequestError(f"task.dataset={name} is empty: it holds no document")


def _next(rows: Iterator[Any], name: str, read: int) -> Any:
    try:
        return next(rows, None)
    except ImportError as error:  # compressed files need a package of their own
        raise RequestError(f"task.dataset={name}: {error}; pip install zstandard") from error
    except Exception as error:  # whatever the network, a codec or a parser says ends the reading
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(f"task.dataset={name}: reading ended after {read} rows: {reason}") from error


def _text(row: Any, column: str, place: str) -> str:
    if column not in row:
        raise RequestError(f"task.text_column={column}: {place} has only {', '.join(sorted(row))}")
    if not isinstance(row[column], str):
        kind = type(row[column]).__name__
        raise RequestError(f"task.text_column={column}: {place} has {kind} there, not a text")
    return row[column]
