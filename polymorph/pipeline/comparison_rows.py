"""The comparison of a whole cohort as one run, from the rows that are kept: every checkpoint, whoever computed it.

Jobs beside each other cannot share one offline run, and each knows the pairs that it came second to. Their rows
meet in the cohort's folder, so that stacked, sequential and parallel sweeps leave the same dashboard.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.online_saes import transfers_there
from polymorph.pipeline.pair_cache import PairCache
from polymorph.pipeline.pair_studies import BRIEF_STUDIES, LADDER
from polymorph.store import Cohort, digest
from polymorph.tracking.charts import by_checkpoint, metrics_of
from polymorph.tracking.loggers import Tracking

RECORD = "compared"
"""Of which rows the last run was made."""
Checkpoints = Iterator[tuple[int, list[Row]]]


@dataclass
class ComparisonRows:
    """The rows that are kept of the pairs of one cohort."""

    comparison: Comparison
    say: Callable[[str], None] = print

    @cached_property
    def steps(self) -> list[int]:
        """At which two members or more have a checkpoint."""
        there = Counter(step for member in self.comparison.cohort.members() for step in member.steps())
        return sorted(step for step, members in there.items() if members > 1)

    def checkpoints(self) -> Checkpoints:
        """The rows of one step at a time; those of pairs that were not computed are missing."""
        for step in self.steps:
            yield step, self.of(self.comparison.pairs_at(step))

    def of(self, pairs: Sequence[PairLabel]) -> list[Row]:
        readable = self._readable(pairs)
        return [*self.cache.stored(LADDER, readable), *self._beside(readable)]

    def beside(self, pairs: Sequence[PairLabel]) -> list[Row]:
        """All but the ladder: pairing tests, steering regimes and the transfer of SAEs, as they accompany training."""
        return self._beside(self._readable(pairs))

    @property
    def cache(self) -> PairCache:
        return PairCache(self.comparison)

    def _beside(self, pairs: Sequence[PairLabel]) -> list[Row]:
        brief = [self.cache.stored(study, pairs) for study in BRIEF_STUDIES.values()]
        transfer = [
            self.cache.stored(study, [pair])
            for pair in pairs
            if pair.role == "estimate"
            for study in transfers_there(self.comparison, pair)
        ]
        return [row for rows in (*brief, *transfer) for row in rows]

    def _readable(self, pairs: Sequence[PairLabel]) -> list[PairLabel]:
        readable, problems = self.comparison.readable(pairs)
        for problem in problems:
            self.say(f"not shown: {problem}")
        return readable


def write_comparison(
    tracking: Tracking, compared: ComparisonRows, about: Mapping[str, Any], tags: Sequence[str]
) -> bool:
    """A run with every checkpoint, unless there is one of the same rows; whether one was written.

    Nothing that goes wrong here is worth the failure of a training, so it is said, and that is all.
    """
    record = tracking.folder / tracking.config.kind / RECORD
    try:
        if (
            not tracking.wanted
            or len(compared.steps) == 0
            or _is_up_to_date(record, compared.comparison.cohort)
        ):
            return False
        logger = tracking.open("comparison", "comparison", about, tags)
        if logger is None:
            return False
        try:
            for step, rows in compared.checkpoints():
                logger.log_metrics(metrics_of(rows), step)
            whole = logger.inner is not None
        finally:
            logger.finish(0)
        if whole:
            remember(tracking, compared.comparison.cohort)
    except Exception as error:
        compared.say(
            f"no run of the comparison: {type(error).__name__}: {error}; python analyze.py writes one"
        )
        return False
    return whole


def remember(tracking: Tracking, cohort: Cohort) -> None:
    """That the rows which are there now have their run."""
    folder = tracking.folder / tracking.config.kind
    if tracking.wanted and folder.is_dir():
        (folder / RECORD).write_text(fingerprint(cohort) + "\n", encoding="utf-8")


def fingerprint(cohort: Cohort) -> str:
    """Of all rows of pairs that there are, by the names of their folders."""
    return digest(sorted(f"{path.parent.name}/{path.name}" for path in cohort.pairs.folder.glob("*/*")))


def _is_up_to_date(record: Path, cohort: Cohort) -> bool:
    return record.is_file() and record.read_text(encoding="utf-8").strip() == fingerprint(cohort)


def log_checkpoints(logger: Logger, rows: Sequence[Row]) -> None:
    """All rows, a checkpoint at a time."""
    for step, own in by_checkpoint(rows):
        logger.log_metrics(metrics_of(own), step)
