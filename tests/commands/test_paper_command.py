"""`ledger=paper` and `figures=paper`: what they write beside an analysis, and what they refuse."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cohorts import memory_folder, snapshot, trained
from ended import Ended, Run, check_refused

from polymorph.cli import analyze, command
from polymorph.cli.config import AnalyzeConfig
from polymorph.store import Cohort, CorruptError, Results

OWN = ["cohort=small", "logger=none", "accelerator=cpu", "threads=1", "study=[ladder,angles,pairing]"]


@pytest.fixture(scope="module")
def two() -> Iterator[Cohort]:
    """Two members; not to be changed."""
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1]", "checkpoints.powers_until=0", "checkpoints.every=15")


@pytest.fixture
def mine(two: Cohort, root: Path, monkeypatch: pytest.MonkeyPatch) -> Cohort:
    """A copy that is analysed, with three studies."""
    monkeypatch.setattr("polymorph.report.bundle.draw_all", lambda report: {})
    shutil.copytree(two.folder, root / two.folder.name)
    (config,) = command.requests("analyze", AnalyzeConfig, [f"root={root}", *OWN])
    assert analyze.run(config) == command.DONE
    return Cohort.open(root / two.folder.name)


def analyse(run: Run, cohort: Cohort, *more: str) -> Ended:
    return run("analyze", f"root={cohort.folder.parent}", *OWN, *more)


def test_the_ledger_is_written_beside_an_analysis_that_is_there_and_changes_nothing_of_it(
    run: Run, mine: Cohort
):
    before = snapshot(mine.folder)
    ended = analyse(run, mine, "ledger=paper")
    assert ended.status == command.DONE, ended
    assert "nothing new" in ended.out
    assert "not run here" in ended.out
    after = snapshot(mine.folder)
    new = {f"analysis/default/{name}" for name in ("ledger.json", "ledger.html")}
    assert {name: own for name, own in after.items() if name not in new} == before
    assert new <= after.keys()
    written = json.loads((mine.folder / "analysis/default/ledger.json").read_text())
    found = {entry["id"]: entry for entry in written["entries"]}
    assert found["sae_ev.dyck_a.mapped"]["verdict"] == "not run here"
    assert found["sae_ev.dyck_a.mapped"]["reason"] == "there is no table of sae_transfer"
    assert "stage=sae" in found["sae_ev.dyck_a.mapped"]["make"]
    assert found["frobenius.dyck_b"]["ours"]
    assert "architecture.d_model 16 instead of 64" in found["frobenius.dyck_b"]["on_another_cohort"]
    assert found["model.parameters"]["ours"] != [104448.0]
    assert "nothing new" in analyse(run, mine).out  # and it is no part of what has to be made again


def test_figures_are_written_where_there_are_rows_for_them_and_the_others_said(
    run: Run, mine: Cohort
) -> None:
    ended = analyse(run, mine, "figures=paper")
    assert ended.status == command.DONE, ended
    assert "no figure sae_transfer: " in ended.out
    there = {path.name for path in (mine.folder / "analysis/default/paper").iterdir()}
    assert there == {"rotation-1.pdf", "rotation-2.pdf", "captions.txt"}
    assert (mine.folder / "analysis/default/paper/rotation-1.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("key", ["ledger", "figures"])
def test_another_name_than_the_papers_is_refused(run: Run, mine: Cohort, key: str) -> None:
    before = snapshot(mine.folder)
    check_refused(analyse(run, mine, f"{key}=foo"), rf"{key}=.foo.: one of paper")
    assert snapshot(mine.folder) == before


@pytest.mark.parametrize("key", ["ledger", "figures"])
def test_a_planted_cohort_and_a_port_are_refused(run: Run, mine: Cohort, key: str) -> None:
    check_refused(
        run("analyze", "cohort=planted:rotated", f"{key}=paper"), f"{key}=paper: planted:rotated is planted"
    )
    port = "port={source:0,target:1,site:blocks.0.hook_resid_post,sae:standard_x8,map:orthogonal}"
    check_refused(analyse(run, mine, port, f"{key}=paper"), f"{key}=paper: with port=… nothing is analysed")


def test_results_are_read_as_they_were_written_or_not_at_all(mine: Cohort) -> None:
    results = Results(mine.folder, "default")
    assert "ladder.parquet" in results.written()
    assert results.read("ladder.parquet") == (results.folder / "ladder.parquet").read_bytes()
    (results.folder / "ladder.parquet").write_bytes(b"other")
    with pytest.raises(CorruptError, match="not as the analysis wrote it"):
        results.read("ladder.parquet")
    with pytest.raises(CorruptError):
        Results(mine.folder, "another").written()
