"""At each checkpoint: compare whoever has published it, keep the rows, log them. It changes no training."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.online_saes import OnlineSAEs
from polymorph.pipeline.pair_cache import PairCache, PairStudy
from polymorph.pipeline.pair_studies import BRIEF_STUDIES, LADDER
from polymorph.tracking.charts import metrics_of
from polymorph.training.checkpoint import Checkpoint
from polymorph.training.module import StackModule

T = TypeVar("T")


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
        self._done = step = published.step
        seeds = published.seeds
        pairs = self._guarded(step, "the comparison", lambda: self._pairs(module, step, seeds))
        ladder = None if pairs is None else self._made(step, "the comparison", LADDER, pairs)
        if pairs is None or ladder is None:
            return
        pairing = self._made(step, "the pairing test", BRIEF_STUDIES["pairing"], pairs) or []
        self._log(step, seeds, "the comparison", [*ladder, *pairing])
        transfer = self._guarded(step, "the comparison of SAEs", lambda: self._transfer(step, seeds, pairs))
        self._log(step, seeds, "the comparison of SAEs", transfer or [])
        regimes = self._made(
            step, "the comparison of steering", BRIEF_STUDIES["steering"], self._steered(pairs, seeds)
        )
        self._log(step, seeds, "the comparison of steering", regimes or [])

    def _pairs(self, module: StackModule, step: int, seeds: Sequence[int]) -> list[PairLabel]:
        """The pairs whose checkpoints can be read. Members of this stack are compared as they are in memory."""
        with torch.no_grad(), torch.random.fork_rng():
            for index, progress in enumerate(self.checkpoint.progress):
                if (manifest := self.checkpoint.published.manifests.get(progress.member.seed)) is not None:
                    weights = module.stack.member_weights(index)
                    self.comparison.hold((progress.member.seed, step), manifest, weights)
            pairs, problems = self.comparison.readable(self.comparison.pairs_at(step, seeds))
        for problem in problems:
            self.say(f"not compared: {problem}")
        return pairs

    def _made(self, step: int, what: str, study: PairStudy, pairs: Sequence[PairLabel]) -> list[Row] | None:
        def rows() -> list[Row]:
            with torch.no_grad(), torch.random.fork_rng():
                return PairCache(self.comparison).rows(study, pairs).rows

        return self._guarded(step, what, rows)

    def _guarded(self, step: int, what: str, make: Callable[[], T]) -> T | None:
        """What it makes; None where that fails, which is recorded."""
        try:
            return make()
        except Exception as error:
            self._record(step, error, what)
            return None

    def _ready(self, mode: str, seeds: Sequence[int]) -> list[int]:
        """The members for which now is the time."""
        ended = [p.member.seed for p in self.checkpoint.progress if p.done is not None]
        return {"none": [], "online": list(seeds)}.get(mode, [seed for seed in seeds if seed in ended])

    def _steered(self, pairs: Sequence[PairLabel], seeds: Sequence[int]) -> list[PairLabel]:
        """The pairs whose members are to be steered now: none where there may be little time left."""
        ready = self._ready(self.steering, seeds)
        if self.checkpoint.interruption.requested:
            return []
        return [pair for pair in pairs if pair.source in ready or pair.target in ready]

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

    def _log(self, step: int, seeds: Sequence[int], what: str, rows: Sequence[Row]) -> None:
        if rows:
            self._guarded(step, what, lambda: self._log_rows(step, seeds, rows))

    def _log_rows(self, step: int, seeds: Sequence[int], rows: Sequence[Row]) -> None:
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
