"""One W&B run as a logger: exact axes, tables and figures as media, files as artifacts that know what they are from."""

import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

AXIS = "trainer/global_step"
"""The step of the members, against which everything is drawn."""
TABLE_ROWS = 10_000
"""W&B shows no more of a table; the Parquet file holds them all."""


@dataclass(frozen=True)
class Artifact:
    """Files under one name: `kind` is checkpoint, sae, maps or report; `facts` say what they follow from."""

    name: str
    kind: str
    files: Mapping[str, Path]
    facts: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = True
    """Whether the files never change where they lie, so that W&B need not copy them."""


class RunLogger(Logger):
    """Writes to one run, and to no other of the process.

    Every metric has `AXIS` as its axis under its exact name: where globs overlap, W&B picks one at random.
    """

    def __init__(self, run: Any, data: Path) -> None:
        super().__init__()
        self.run, self.data = run, data
        self._defined: set[str] = set()
        run.define_metric(AXIS, hidden=True)

    @property
    def name(self) -> str | None:
        return str(self.run.name)

    @property
    def version(self) -> str | None:
        return str(self.run.id)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        for name in metrics:
            self._define(name)
        self.run.log({**metrics, **({} if step is None else {AXIS: step})})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.run.config.update(dict(params), allow_val_change=True)

    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Numbers of the run as a whole, which have no step of their own."""
        self.run.summary.update(dict(values))

    def _define(self, name: str) -> None:
        if name not in self._defined:
            self.run.define_metric(name, step_metric=AXIS)
            self._defined.add(name)

    def log_table(self, name: str, table: pl.DataFrame) -> None:
        """The first rows of a table, as many as W&B shows."""
        import wandb

        shown = table.head(TABLE_ROWS)
        with self._inside():
            self.run.log({f"tables/{name}": wandb.Table(columns=shown.columns, data=shown.rows())})

    def log_figure(self, name: str, png: bytes, caption: str | None = None) -> None:
        import wandb

        with self._inside(), Image.open(io.BytesIO(png)) as image:
            self.run.log({f"figures/{name}": wandb.Image(image, caption=caption)})

    def log_artifact(self, artifact: Artifact, made_from: Sequence[Artifact] = ()) -> None:
        """Keep the files as an output of this run, and others, by content, as what it has read."""
        with self._inside():
            for parent in made_from:
                self._use(parent)
            self.run.log_artifact(self._drafted(artifact))

    def _use(self, artifact: Artifact) -> None:
        """What was logged under this name with these files; where there is no server yet, once there is one.

        W&B refuses `use_artifact` offline, but a run's own record can hold the use until it is synced.
        """
        draft = self._drafted(artifact)
        if not self.run.offline:
            self.run.use_artifact(draft)
            return
        try:
            self.run._log_artifact(draft, is_user_created=True, use_after_commit=True)
        except (AttributeError, TypeError) as error:  # it is W&B's own, and may go without notice
            warnings.warn(f"{artifact.name} is not noted as what this run has read: {error}", stacklevel=2)

    def _drafted(self, artifact: Artifact) -> Any:
        import wandb

        draft = wandb.Artifact(artifact.name, type=artifact.kind, metadata=dict(artifact.facts))
        for name, path in sorted(artifact.files.items()):
            policy = "immutable" if artifact.lasting else "mutable"
            draft.add_file(str(path), name=name, skip_cache=True, policy=policy)
        return draft

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """W&B's copies of media and artifacts belong into the cohort's folder, not into the user's home."""
        before = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = str(self.data)
        try:
            yield
        finally:
            if before is None:
                del os.environ["WANDB_DATA_DIR"]
            else:
                os.environ["WANDB_DATA_DIR"] = before
