"""Where numbers are shown: the options of a logger."""

import netrc
import os
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import urlparse

from polymorph.checks import one_of

KINDS = ("wandb", "csv", "none")
RunMode = Literal["online", "offline", "disabled"]
MODES = ("auto", "online", "offline", "disabled")


@dataclass
class LoggerConfig:
    """Where numbers are shown; they are kept in the cohort in any case."""

    kind: str = "wandb"
    """`wandb`, `csv` or `none`; chosen as `logger=…`."""
    project: str = "polymorph"
    """Of W&B."""
    entity: str | None = None
    """The user or team of W&B; null is the account's own."""
    mode: str = "auto"
    """`auto` is online where W&B has a key on this machine, else offline."""
    tags: list[str] | None = None
    """Beside those that every run has: its kind, the task, the experiment and the kind of cohort."""
    media: bool = False
    """Tables and figures of an analysis too."""
    artifacts: bool = False
    """Checkpoints' manifests, SAEs, maps and reports as artifacts, each knowing what it was made from."""

    def __post_init__(self) -> None:
        one_of("logger.kind", self.kind, KINDS)
        one_of("logger.mode", self.mode, MODES)


def resolve_mode(mode: str) -> RunMode:
    """`auto` made definite without asking anybody: a key in the environment or in netrc means online."""
    asked = os.environ.get("WANDB_MODE", "auto") if mode == "auto" else mode
    if asked in ("online", "offline", "disabled"):
        return cast(RunMode, asked)
    return "online" if os.environ.get("WANDB_API_KEY") or _has_netrc_key() else "offline"


def _has_netrc_key() -> bool:
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
