"""The tables of studies, made from the evidence of one comparison."""

import itertools
from collections.abc import Sequence

import polars as pl

from polymorph.errors import RunError
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row, table
from polymorph.progress import SILENT, Progress
from polymorph.studies.registry import STUDIES
from polymorph.studies.study import Study

MEMORY_GIB = 8.0


def study_tables(
    evidence: Evidence, names: Sequence[str], memory_gib: float = MEMORY_GIB, progress: Progress = SILENT
) -> tuple[dict[str, pl.DataFrame], list[tuple[str, str]]]:
    """The table of every named study, and those that could not be made, with the reason.

    A study that cannot bear its evidence (too few tokens or documents, no variance) is refused, not the others.
    Moments are held for as many sites at a time as the memory allows.
    """
    rows: dict[str, list[Row]] = {name: [] for name in names if STUDIES[name].applies(evidence)}
    refused = {name: f"it needs {STUDIES[name].missing}" for name in names if name not in rows}
    parts = [(evidence, [name for name in rows if STUDIES[name].scope == "all"])]
    narrow = [name for name in rows if STUDIES[name].scope != "all"]
    with progress.bar("studies", len(rows) * len(evidence.sites)) as bar:
        done = 0
        for part, asked in itertools.chain(((site, narrow) for site in evidence.by_sites(memory_gib)), parts):
            for name in asked:
                bar.update(done, now=name)
                done += len(part.sites)
                if name not in refused:
                    try:
                        rows[name] += _rows(STUDIES[name], part)
                    except (ValueError, RunError) as error:
                        refused[name] = str(error)
    tables = {name: table(own, STUDIES[name].columns) for name, own in rows.items() if name not in refused}
    return tables, [(f"study {name}", reason) for name, reason in refused.items()]


def _rows(study: Study, evidence: Evidence) -> list[Row]:
    parts = evidence.by_pairs() if study.scope == "pairs" else [evidence]
    return [row for part in parts for row in study.rows(part)]
