"""A page of nine members stays far below five megabytes."""

import itertools
import re
from dataclasses import replace

import polars as pl
import pytest

from polymorph.report.data import ReportData
from polymorph.report.explorer import explorer_of
from polymorph.report.figures import draw_all
from polymorph.report.page import render_page
from polymorph.studies.registry import STUDIES

MEMBERS, BOUND = 9, 4_000_000
"""Seeds, and bytes."""


def of_nine(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of three seeds as those of nine: every pair has the rows of one of the three, a little moved."""
    if frame.is_empty() or not {"source", "target"} <= set(frame.columns):
        return frame
    there = frame.partition_by(["source", "target"], as_dict=True)
    seeds = range(MEMBERS)
    ends = [(None, None), *((None, seed) for seed in seeds), *itertools.product(seeds, seeds)]
    found = [_moved(there[like], *pair) for pair in ends if (like := _like(*pair)) in there]
    return pl.concat(found)


def _like(source: int | None, target: int | None) -> tuple[int | None, int | None]:
    """The pair of the three seeds, or the seed, whose rows another one gets."""
    first, second = (None if seed is None else seed % 3 for seed in (source, target))
    return (0, 1) if first == second and source != target else (first, second)


def _moved(rows: pl.DataFrame, source: int | None, target: int | None) -> pl.DataFrame:
    by = 1 - 0.002 * (9 * (source or 0) + (target or 0)) / 81
    values = [pl.col(name) * by for name in ("value", "low", "high") if name in rows.columns]
    return rows.with_columns(
        *values, source=pl.lit(source, dtype=pl.Int64), target=pl.lit(target, dtype=pl.Int64)
    )


def larger(report: ReportData) -> ReportData:
    tables = {name: of_nine(frame) for name, frame in report.tables.items()}
    members = [replace(report.members[0], seed=seed) for seed in range(MEMBERS)]
    return replace(report, members=members, tables=tables)


def at_more_places(ladder: pl.DataFrame, sites: int, steps: int) -> pl.DataFrame:
    """The rows of one site at its last step, at so many sites and steps."""
    rows = ladder.filter(site="blocks.1.hook_resid_mid", source_step=64, target_step=64)
    return pl.concat(
        rows.with_columns(
            site=pl.lit(f"blocks.{site}.hook_resid_post"),
            source_step=pl.lit(step, dtype=pl.Int64),
            target_step=pl.lit(step, dtype=pl.Int64),
        )
        for site in range(sites)
        for step in range(steps)
    )


def test_nine_members_are_nine(planted):
    report = larger(planted)
    estimates = report.ladder.filter(role="estimate", metric="r2", map="affine", target_step=64)
    assert estimates.select("source", "target").n_unique() == 72
    assert not estimates.select("source", "target", "site").is_duplicated().any()
    ceilings = report.ladder.filter(role="ceiling", metric="r2", map="affine", target_step=64)
    assert set(ceilings["source"]) == set(range(9))


def test_the_numbers_of_nine_members_at_five_sites_and_twelve_steps_are_small(planted):
    ladder = at_more_places(larger(planted).ladder, sites=5, steps=12)
    explorer = explorer_of(ladder)
    assert explorer.single_pairs
    assert len(explorer.numbers["pairs"]) == 72
    assert len(explorer.json()) < 500_000


def test_more_members_or_steps_do_not_make_the_page_larger_without_end(planted):
    ladder = at_more_places(larger(planted).ladder, sites=12, steps=20)
    explorer = explorer_of(ladder)
    assert not explorer.single_pairs
    assert len(explorer.json()) < 500_000


@pytest.mark.slow
def test_a_page_of_nine_members_with_every_study_is_below_its_bound(studied):
    report = larger(studied)
    page = render_page(report, draw_all(report))
    assert len(page.encode()) < BOUND
    pictures = [len(found) for found in re.findall(r'src="(data:[^"]*)"', page)]
    assert len(pictures) >= 20
    assert max(pictures) < BOUND / 10
    assert all(f'<section id="{name}"' in page for name in STUDIES)
