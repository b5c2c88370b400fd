"""At each checkpoint: compare whoever has published it, keep the rows, log them. It changes no training."""

import contextlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.live_studies import LiveStudies
from polymorph.pipeline.online_saes import OnlineSAEs
from polymorph.store import CorruptError
from polymorph.tracking.charts import metrics_of
from polymorph.training.checkpoint import Checkpoint
from polymorph.training.module import StackModule


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
    steering: str = "none"
    """When members are steered."""
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
        step, seeds = published.step, published.seeds
        pairs: list[PairLabel] = []
        parts = {
            "the comparison": lambda: self._ladder(step, seeds, pairs),
            "the comparison of SAEs": lambda: self._transfer(step, seeds, pairs),
            "the comparison of steering": lambda: self._steering(seeds, pairs),
        }
        for what, rows in parts.items():
            try:
                self._log(step, seeds, rows())
            except Exception as error:
                self._record(step, error, what)
                if not pairs:
                    return

    def _ladder(self, step: int, seeds: Sequence[int], pairs: list[PairLabel]) -> list[Row]:
        """The maps of all pairs, which are put into `pairs`, and whether their members are related at all."""
        with torch.no_grad(), torch.random.fork_rng():
            found = self.comparison.pairs_at(step, seeds)
            rows, left_out, _ = self.comparison.rows(found)
            pairs += found
            for problem in left_out:
                self.say(f"not compared: {problem}")
            try:
                return rows + LiveStudies(self.comparison).rows("pairing", self._readable(pairs))
            except Exception as error:
                self._record(step, error, "the pairing test")
                return rows

    def _readable(self, pairs: Sequence[PairLabel]) -> list[PairLabel]:
        """Without those that were left out of the comparison, which has said why."""
        found = []
        for pair in pairs:
            with contextlib.suppress(CorruptError):
                self.comparison.key(pair)
                found.append(pair)
        return found

    def _ready(self, mode: str, seeds: Sequence[int]) -> list[int]:
        """The members for which now is the time."""
        ended = [p.member.seed for p in self.checkpoint.progress if p.done is not None]
        return {"none": [], "online": list(seeds)}.get(mode, [seed for seed in seeds if seed in ended])

    def _steering(self, seeds: Sequence[int], pairs: Sequence[PairLabel]) -> list[Row]:
        """Which regimes vectors of one member meet on another."""
        ready = self._ready(self.steering, seeds)
        asked = [pair for pair in pairs if pair.source in ready or pair.target in ready]
        if not asked or self.checkpoint.interruption.requested:  # then there may be little time left
            return []
        with torch.no_grad(), torch.random.fork_rng():
            return LiveStudies(self.comparison).rows("steering", self._readable(asked))

    def _transfer(self, step: int, seeds: Sequence[int], pairs: Sequence[PairLabel]) -> list[Row]:
        """Bring the SAEs of the members up to the checkpoint, then compare them with those of their siblings."""
        if self.saes is None:
            return []
        ready = self._ready("online" if self.saes.variant == "online" else "final", seeds)
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
            self.summary.log_metrics(metrics_of(rows), step)
            return
        for seed in seeds:
            own = [row for row in rows if seed in (row.source, row.target)]
            if own and (logger := self.loggers.get(seed)) is not None:
                logger.log_metrics(metrics_of(own), step)

    def _record(self, step: int, error: Exception, what: str) -> None:
        self.say(f"{what} at step {step} failed ({type(error).__name__}: {error}); training goes on")
        trace = "".join(traceback.format_exception(error))[-8000:]
        for progress in self.checkpoint.progress:
            progress.member.append_row({"kind": "comparison failure", "step": step, "traceback": trace})
