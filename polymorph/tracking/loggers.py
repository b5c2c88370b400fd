"""Weights & Biases as a view of our rows: a run for each member, one for the comparison, all in one group.

Our own rows are the record, so a fault of W&B costs a warning and nothing else. Without an account or a
network the runs are offline; nothing is asked and nothing waits.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only

from polymorph.tracking.config import LoggerConfig, resolve_mode
from polymorph.tracking.runs import RunLogger

if TYPE_CHECKING:
    import wandb


class Breaker(Logger):
    """A logger that is let go of, with one warning, the first time that it fails."""

    def __init__(self, inner: Logger, finish: Callable[[int], None]) -> None:
        super().__init__()
        self.inner: Logger | None = inner
        self._finish = finish

    @property
    def name(self) -> str | None:
        return self.inner.name if self.inner is not None else None

    @property
    def version(self) -> int | str | None:
        return self.inner.version if self.inner is not None else None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._try(lambda inner: inner.log_metrics(dict(metrics), step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._try(lambda inner: inner.log_hyperparams(params))

    def show(self, action: Callable[[RunLogger], None]) -> None:
        """What only a run of W&B can hold; elsewhere it is left out."""
        self._try(lambda inner: action(inner) if isinstance(inner, RunLogger) else None)

    def finish(self, exit_code: int) -> None:
        """End the run; to be called whatever happened."""
        self._try(lambda inner: self._finish(exit_code))
        self.inner = None

    def _try(self, action: Callable[[Logger], None]) -> None:
        if self.inner is None:
            return
        try:
            action(self.inner)
        except Exception as error:
            self.inner = None
            warnings.warn(f"logging stopped: {type(error).__name__}: {error}; rows are kept", stacklevel=2)


@dataclass(frozen=True)
class Tracking:
    """Makes the loggers of one cohort. `folder` is the cohort's."""

    config: LoggerConfig
    folder: Path

    @property
    def wanted(self) -> bool:
        """Whether anything that is logged would be kept."""
        kind = self.config.kind
        return kind == "csv" or (kind == "wandb" and resolve_mode(self.config.mode) != "disabled")

    def open(
        self, name: str, kind: str, config: Mapping[str, Any], tags: Sequence[str] = ()
    ) -> Breaker | None:
        """The logger of one run of the group; None where none is wanted or it cannot be started."""
        if self.config.kind == "none":
            return None
        try:
            return self._csv(name) if self.config.kind == "csv" else self._wandb(name, kind, config, tags)
        except Exception as error:
            warnings.warn(f"no logging of {name}: {type(error).__name__}: {error}", stacklevel=2)
            return None

    def _csv(self, name: str) -> Breaker:
        logger = CSVLogger(str(self.folder / "csv"), name=name)
        return Breaker(logger, lambda exit_code: logger.save())

    def _wandb(self, name: str, kind: str, config: Mapping[str, Any], tags: Sequence[str]) -> Breaker:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        mode = resolve_mode(self.config.mode)
        run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            group=self.folder.name,
            name=name,
            job_type=kind,
            dir=str(self.folder),
            config=dict(config),
            tags=list(dict.fromkeys([kind, *tags, *(self.config.tags or ())])),
            mode=mode,
            reinit="create_new",
            settings=_settings(),
        )
        logger = RunLogger(run, self.folder.absolute() / "wandb")
        return Breaker(logger, lambda exit_code: run.finish(exit_code=exit_code))


def _settings() -> "wandb.Settings":
    """Quiet, bounded in time, and nothing but what we log: neither code nor machine leaves with it."""
    import wandb

    return wandb.Settings(
        silent=True,
        init_timeout=20,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
        x_transaction_log_flush_interval=2.0,  # seconds until `wandb leet` sees what was logged
    )
