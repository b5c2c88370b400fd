"""At each checkpoint: compare whoever has published it, keep the rows, log them. It changes no training."""

import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from polymorph.checks import one_of
from polymorph.comparison import Comparison
from polymorph.online_saes import OnlineSAEs
from polymorph.studies import sae_transfer
from polymorph.studies.pairs import PairLabel
from polymorph.studies.rows import Row
from polymorph.training.checkpoint import Checkpoint
from polymorph.training.module import StackModule

SAE_MODES = ("none", "online", "final")


@dataclass
class CrossSeedConfig:
    """The comparison at every checkpoint."""

    enabled: bool = True
    """Compare at every checkpoint; `analyze.py` makes what was not compared."""
    sae: str = "none"
    """`online`: SAEs are kept trained at every checkpoint; `final`: trained once, at the end; `none`."""

    def __post_init__(self) -> None:
        one_of("callbacks.cross_seed.sae", self.sae, SAE_MODES)


@dataclass
class CrossSeed(L.Callback):
    """Rows for every pair that has published the step, in this stack or on disk.

    Publishing comes first and listing the siblings second, so of two processes that publish at the same time
    at least one sees the other. A fault here is recorded with the members and training goes on.
    """

    comparison: Comparison
    checkpoint: Checkpoint
    loggers: Mapping[int, Logger]
    """By seed. `summary` is the run of the comparison itself, which only a stack writes live."""
    summary: Logger | None = None
    saes: OnlineSAEs | None = None
    """SAEs that accompany the training, if any do."""
    say: Callable[[str], None] = print
    _done: int = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._compare(pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._compare(pl_module)

    def _compare(self, module: L.LightningModule) -> None:
        assert isinstance(module, StackModule)
        published = self.checkpoint.published
        if published.step != module.step or published.step == self._done or not published.seeds:
            return
        self._done = published.step
        try:
            with torch.no_grad(), torch.random.fork_rng():
                pairs = self.comparison.pairs_at(published.step, published.seeds)
                rows, left_out, _ = self.comparison.rows(pairs)
            for problem in left_out:
                self.say(f"not compared: {problem}")
            self._log(published.step, published.seeds, rows)
        except Exception as error:
            self._record(published.step, error)
            return
        try:
            self._log(published.step, published.seeds, self._transfer(published.step, published.seeds, pairs))
        except Exception as error:
            self._record(published.step, error, "the comparison of SAEs")

    def _transfer(self, step: int, seeds: Sequence[int], pairs: Sequence[PairLabel]) -> list[Row]:
        """Bring the SAEs of the members up to the checkpoint, then compare them with those of their siblings."""
        if self.saes is None:
            return []
        ended = [p.member.seed for p in self.checkpoint.progress if p.done is not None]
        ready = seeds if self.saes.variant == "online" else [seed for seed in seeds if seed in ended]
        if not ready:
            return []
        threads = torch.get_num_threads()
        with torch.random.fork_rng():
            try:
                self.saes.train(step, ready, self.checkpoint.interruption)
                with torch.no_grad():
                    return self.saes.rows(pairs)
            finally:
                torch.set_num_threads(threads)

    def _log(self, step: int, seeds: Sequence[int], rows: list[Row]) -> None:
        if not rows:
            return
        if self.summary is not None:
            self.summary.log_metrics(summarise(rows), step)
            return
        for seed in seeds:
            own = [row for row in rows if seed in (row.source, row.target)]
            if own and (logger := self.loggers.get(seed)) is not None:
                logger.log_metrics(summarise(own), step)

    def _record(self, step: int, error: Exception, what: str = "the comparison") -> None:
        self.say(f"{what} at step {step} failed ({type(error).__name__}: {error}); training goes on")
        trace = "".join(traceback.format_exception(error))[-8000:]
        for progress in self.checkpoint.progress:
            progress.member.append_row({"kind": "comparison failure", "step": step, "traceback": trace})


def summarise(rows: Sequence[Row]) -> dict[str, float]:
    """Medians over directed pairs, under `compare/<site>/<metric>/<SAEs>/<map or control>`; for charts only."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.extra.get("control") != "predict_mean":  # it is the same at every checkpoint
            path = ("compare", row.site, row.metric, row.extra.get("sae"), _curve(row))
            values["/".join(str(part) for part in path if part)].append(row.value)
    return {name: median(numbers) for name, numbers in sorted(values.items())}


def _curve(row: Row) -> str:
    """Which line of a chart a row belongs to."""
    own = "own" if row.study == sae_transfer.STUDY else "ceiling"
    kind = {"control": row.extra.get("control"), "ceiling": own}.get(row.role)
    paper = "paper" if row.convention == "paper" else None
    return "_".join(str(part) for part in (row.map, kind, paper) if part is not None)
