"""Any causal language model that `transformers` opens: from the hub, from its cache, or from a folder.

A member is a repository or a folder, and a revision. What a cohort keeps of it is a reference with a SHA-256 of
its weights; the weights themselves stay where they are, and are checked whenever they are read.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import is_offline_mode
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from polymorph.checks import nearest
from polymorph.errors import RequestError
from polymorph.models.architecture import Weights
from polymorph.models.causal_lm import float32_weights


@dataclass(frozen=True)
class Pretrained:
    """A model where it lies: a hub repository, or a folder, whose revisions may be folders in it."""

    repository: str
    revision: str | None = None
    weights: str | None = None
    """SHA-256 of its float32 weights, once that is known."""
    allow_pickle: bool = False
    """Whether weights that are there as a pickle alone are read, by torch's restricted reader."""

    @classmethod
    def of(cls, reference: Mapping[str, Any]) -> "Pretrained":
        """By the commit where it is known: a branch moves."""
        revision = reference.get("commit") or reference["revision"]
        return cls(
            str(reference["repository"]),
            revision,
            str(reference["weights"]),
            reference.get("pickle") is True,
        )

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    @property
    def folder(self) -> Path | None:
        """The folder that it is, if it is one."""
        folder = Path(self.repository).expanduser()
        return folder if folder.is_dir() else None

    def model(self) -> PreTrainedModel:
        """In float32, whatever it is kept in, with every weight from its file; verified where its SHA-256 is known."""
        pickle = {} if self.allow_pickle else {"use_safetensors": True}
        with _quietly():
            model, told = self._opened(
                AutoModelForCausalLM,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
                **pickle,
            )
        for key in ("missing_keys", "mismatched_keys"):
            if told[key]:
                raise RequestError(f"{self} lacks weights of a causal language model: {_some(told[key])}")
        if self.weights is not None and (found := weights_digest(float32_weights(model))) != self.weights:
            raise RequestError(
                f"{self} has weights of SHA-256 {found}, and {self.weights} were imported: it is another model now"
            )
        return model.eval()

    def config(self) -> Any:
        """The configuration alone, without weights."""
        with _quietly():
            return self._opened(AutoConfig)

    def _opened(self, kind: Any, **options: Any) -> Any:
        """What is there already is taken as it is; the hub is asked for the rest. Code that lies beside is not run."""
        where, of_place = self._where()
        options |= {"trust_remote_code": False}  # left out, transformers would ask at the terminal
        try:
            with contextlib.suppress(OSError):
                return kind.from_pretrained(where, **{**of_place, "local_files_only": True}, **options)
            return kind.from_pretrained(where, **of_place, **options)
        except (OSError, ValueError, RuntimeError, HFValidationError, SafetensorError) as error:
            raise self._refused(error) from error

    def tokenizer_source(self) -> str:
        """What `AutoTokenizer` and the text's `tokenizer` option open: a folder, or `repository@revision`."""
        where, options = self._where()
        return f"{where}@{options['revision']}" if options.get("revision") else where

    def _where(self) -> tuple[str, dict[str, Any]]:
        """What `from_pretrained` is called with; a folder is never looked for on the hub."""
        if (folder := self.folder) is None:
            if self.repository.startswith(("/", ".", "~")):
                raise RequestError(f"{self}: there is no such folder")
            return self.repository, {"revision": self.revision}
        if self.revision is None:
            return str(folder), {"local_files_only": True}
        if Path(self.revision).is_absolute() or ".." in Path(self.revision).parts:
            raise RequestError(f"{self}: a revision is a folder below {folder}")
        if not (folder / self.revision / "config.json").is_file():
            there = sorted(path.parent.name for path in folder.glob("*/config.json"))
            raise RequestError(
                f"{self}: the folder holds no revision {self.revision}{nearest(self.revision, there)}; "
                f"there are {', '.join(there) or 'none'}"
            )
        return str(folder / self.revision), {"local_files_only": True}

    def _refused(self, error: Exception) -> RequestError:
        """What was the matter, and what to do."""
        causes = set(map(type, _chain(error)))
        pickle = "pytorch_model.bin" in str(error) or "safetensors" in str(error)
        if self.folder is not None:
            more = "; a pickle is read with cohort.allow_pickle=true alone" if pickle else ""
            return RequestError(f"{self} is not a model that transformers opens: {first_line(error)}{more}")
        revision = "" if self.revision is None else f" --revision {self.revision}"
        if RevisionNotFoundError in causes:
            return RequestError(f"{self}: the repository has no revision {self.revision}")
        if causes & {RepositoryNotFoundError, GatedRepoError, HFValidationError}:
            return RequestError(f"{self}: the hub has no such repository, or it asks for a login")
        if offline() or causes & _UNREACHED or "connect" in str(error).lower():
            return RequestError(
                f"{self} is not in the local cache, and the hub cannot be reached"
                f"{' (HF_HUB_OFFLINE is set)' if offline() else ''}; where there is a network, fetch it with: "
                f"hf download {self.repository}{revision}"
            )
        more = "; weights in a pickle alone are read with cohort.allow_pickle=true" if pickle else ""
        return RequestError(f"{self} cannot be opened: {first_line(error)}{more}")


_UNREACHED = {ConnectionError, TimeoutError}


def offline() -> bool:
    """Whether the user has said that the hub is not to be asked."""
    return bool(is_offline_mode())


def weights_digest(weights: Weights) -> str:
    """SHA-256 of names, shapes and float32 values, in the order of the names: equal for equal models in any file."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().float().contiguous()
        found.update(f"{name} {tuple(value.shape)}\n".encode())
        found.update(value.numpy().view("uint8").data)
    return found.hexdigest()


def _some(keys: Any) -> str:
    names = sorted(str(key) for key in keys)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the bar of reading a file and word of every retry; the bar of a download stays."""
    shown, of_hub = is_progress_bar_enabled(), logging.getLogger("huggingface_hub")
    level = of_hub.level
    disable_progress_bar()
    of_hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        of_hub.setLevel(level)
        if shown:
            enable_progress_bar()


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
