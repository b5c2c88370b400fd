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
from polymorph.evidence.rows import Row, read_table
from polymorph.pipeline.analysis import Analysis
from polymorph.pipeline.artifacts import keep_artifacts
from polymorph.pipeline.comparison_run import Kept, log_checkpoints
from polymorph.pipeline.live_studies import STUDIES, LiveStudies
from polymorph.pipeline.planted_analysis import PlantedAnalysis
from polymorph.tracking.charts import CHARTED
from polymorph.tracking.loggers import Tracking
from polymorph.tracking.runs import RunLogger

LOGGED = ("explained_variance", "pairing_gain", "delta_ce", "loss_recovered")
"""Of the transfer of SAEs."""


def log_analysis(config: AnalyzeConfig, analysis: Analysis | PlantedAnalysis, folder: Path) -> None:
    """One run from the results in `folder`. What goes wrong is said: the results are there."""
    tracking = Tracking(config.logger, analysis.folder)
    if not tracking.wanted:
        return
    about: dict[str, Any] = {"cohort": analysis.name, **analysis.provenance, **analysis.fingerprints}
    logger = tracking.open(f"analysis-{config.name}", "analysis", about)
    if logger is None:
        return
    try:
        tables = {path.stem: read_table(path.read_bytes()) for path in sorted(folder.glob("*.parquet"))}
        log_checkpoints(logger, [*rows_of(tables), *_beside(analysis, tables, config.every_checkpoint)])
        if config.logger.media:
            logger.show(lambda run: _show(run, tables, folder))
        if config.logger.artifacts and isinstance(analysis, Analysis):
            seeds = [member.seed for member in analysis.members]
            keep_artifacts(tracking, logger, analysis.comparison, seeds, folder)
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


def _beside(
    analysis: Analysis | PlantedAnalysis, tables: Mapping[str, pl.DataFrame], compute: bool
) -> list[Row]:
    """What training has left of other studies, but where the analysis has made them itself, on more data."""
    if not isinstance(analysis, Analysis):
        return []
    if compute:
        live = LiveStudies(analysis.comparison)
        for name in STUDIES:
            live.rows(name, [pair for pair in analysis.pairs if _is_new(pair, tables.get(name))])
    rows = Kept(analysis.comparison).beside(analysis.pairs)
    return [row for row in rows if row.target_step not in _steps(tables.get(row.study))]


def _is_new(pair: PairLabel, table: pl.DataFrame | None) -> bool:
    return pair.target_step not in _steps(table)


def _steps(table: pl.DataFrame | None) -> set[int]:
    return set() if table is None else set(table["target_step"].drop_nulls())


def _show(run: RunLogger, tables: Mapping[str, pl.DataFrame], folder: Path) -> None:
    for name, table in tables.items():
        run.log_table(name, table)
    for path in sorted(folder.glob("*.png")):
        run.log_figure(path.stem, path.read_bytes())
