"""An analysis as a W&B run: every checkpoint as charts, and on request tables, figures and artifacts.

All of it is read from the files that the analysis has left.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from polymorph.cli.config import AnalyzeConfig
from polymorph.errors import RequestError, RunError
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import LIVE, Row, read_table
from polymorph.pipeline.analysis import Analysis
from polymorph.pipeline.artifacts import keep_artifacts
from polymorph.pipeline.comparison_rows import ComparisonRows, log_checkpoints
from polymorph.pipeline.pair_cache import PairCache
from polymorph.pipeline.pair_studies import BRIEF_STUDIES
from polymorph.pipeline.source import Source
from polymorph.pipeline.trained_cohort import TrainedCohort
from polymorph.tracking.charts import CHARTED
from polymorph.tracking.loggers import Tracking
from polymorph.tracking.runs import RunLogger

LOGGED = ("explained_variance", "pairing_gain", "delta_ce", "loss_recovered")
"""Of the transfer of SAEs."""


def log_analysis(config: AnalyzeConfig, analysis: Analysis, folder: Path) -> None:
    """One run from the results in `folder`. What goes wrong is said: the results are there."""
    source = analysis.source
    tracking = Tracking(config.logger, source.folder)
    if not tracking.wanted:
        return
    about: dict[str, Any] = {"cohort": source.name, **analysis.provenance, **source.fingerprints}
    logger = tracking.open(f"analysis-{config.name}", "analysis", about)
    if logger is None:
        return
    try:
        tables = {path.stem: read_table(path.read_bytes()) for path in sorted(folder.glob("*.parquet"))}
        log_checkpoints(logger, [*rows_of(tables), *_beside(source, tables, config.every_checkpoint)])
        if config.logger.media:
            logger.show(lambda run: _show(run, tables, folder))
        if config.logger.artifacts and isinstance(source, TrainedCohort):
            seeds = [member.seed for member in source.members]
            keep_artifacts(tracking, logger, source.comparison, seeds, folder)
    except (OSError, ValueError, RequestError, RunError) as error:
        print(f"not all of the analysis is in its run: {type(error).__name__}: {error}")
    finally:
        logger.finish(0)


def rows_of(tables: Mapping[str, pl.DataFrame]) -> Iterator[Row]:
    """Of the studies that have charts; of the transfer of SAEs what it is worth."""
    for name in CHARTED:
        if (table := tables.get(name)) is not None:
            kept = table.filter(pl.col("metric").is_in(LOGGED)) if name == "sae_transfer" else table
            yield from map(Row.from_dict, kept.iter_rows(named=True))


def _beside(source: Source, tables: Mapping[str, pl.DataFrame], compute: bool) -> list[Row]:
    """What training has left of other studies, but where the analysis has made them itself, on more data."""
    if not isinstance(source, TrainedCohort):
        return []
    if compute:
        readable, _ = source.comparison.readable(source.pairs)
        for name, study in BRIEF_STUDIES.items():
            asked = [pair for pair in readable if _is_new(pair, tables.get(name))]
            PairCache(source.comparison).rows(study, asked)
    rows = ComparisonRows(source.comparison).beside(source.pairs)
    return [row for row in rows if row.target_step not in _steps(tables.get(row.study.removesuffix(LIVE)))]


def _is_new(pair: PairLabel, table: pl.DataFrame | None) -> bool:
    return pair.target_step not in _steps(table)


def _steps(table: pl.DataFrame | None) -> set[int]:
    return set() if table is None else set(table["target_step"].drop_nulls())


def _show(run: RunLogger, tables: Mapping[str, pl.DataFrame], folder: Path) -> None:
    for name, table in tables.items():
        run.log_table(name, table)
    for path in sorted(folder.glob("*.png")):
        run.log_figure(path.stem, path.read_bytes())
