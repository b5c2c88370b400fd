"""The export of finished members: a cohort that opens, verifies and is analysed, within a budget."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from cohorts import copy_of, memory_folder, snapshot, trained

from benchmarks import exporting, paper_members
from benchmarks.exporting import best_evaluation, encoded, export_cohort, exported_bytes
from polymorph.errors import RunError
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.comparison_rows import ComparisonRows
from polymorph.store import Cohort, Status
from polymorph.store.reduced_copy import reduced

LIMIT = 10_000_000


@pytest.fixture(scope="module")
def cohort() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1]", "checkpoints.also=[7]")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "STEPS", (0, 7, 1000))


@pytest.mark.usefixtures("steps")
def test_what_is_exported_is_a_cohort_with_the_same_bytes(cohort: Cohort, tmp_path: Path) -> None:
    export_cohort(cohort, tmp_path, LIMIT)
    there = Cohort.open(tmp_path / cohort.name)
    assert there.identity == cohort.identity
    for member in there.members():
        source = cohort.member(member.seed)
        assert member.best_step() == source.best_step() in member.steps()
        assert member.steps() == sorted({0, 7, 30, source.best_step()})
        assert all(
            torch.equal(value, source.read_best().weights[name])
            for name, value in member.read_best().weights.items()
        )
        for step in member.steps():
            assert member.read_step(step).digest == source.read_step(step).digest
        assert (member.status(), member.config()) == (source.status(), source.config())
        assert {row["kind"] for row in member.rows()} == {
            "start",
            "evaluation",
            "best",
        }  # no 1,000th step was reached
    assert {member.seed for member in there.members()} == {0, 1}


@pytest.mark.usefixtures("steps")
def test_the_live_rows_of_a_pair_are_those_of_every_checkpoint(cohort: Cohort, tmp_path: Path) -> None:
    export_cohort(cohort, tmp_path, LIMIT)
    table = pl.read_parquet(tmp_path / cohort.name / "trajectory/seed-0000--seed-0001.parquet")
    compared = set(cohort.member(0).steps()) - {
        cohort.member(0).best_step()
    }  # the best is published at the end
    assert compared <= set(table["source_step"]) <= set(cohort.member(0).steps())
    kept = ComparisonRows(Comparison.of(cohort, torch.device("cpu")))
    rows = [row for _, own in kept.checkpoints() for row in own if row.source != row.target]
    assert len(table) == len(rows)
    r2 = {(r.source, r.source_step, r.site, r.map): r.value for r in rows if _is_plain_r2(r.to_dict())}
    found = {
        (row["source"], row["source_step"], row["site"], row["map"]): row["value"]
        for row in table.iter_rows(named=True)
        if _is_plain_r2(row)
    }
    assert found.keys() == r2.keys()
    assert all(found[key] == pytest.approx(value, rel=2e-5) for key, value in r2.items())


def _is_plain_r2(row: dict) -> bool:
    asked = {"metric": "r2", "role": "estimate", "split": "eval", "convention": "per_dimension"}
    return all(row[key] == value for key, value in asked.items())


def test_an_export_again_changes_nothing_and_a_damaged_one_is_made_whole(
    cohort: Cohort, tmp_path: Path
) -> None:
    assert export_cohort(cohort, tmp_path, LIMIT)
    before = snapshot(tmp_path)
    assert export_cohort(cohort, tmp_path, LIMIT) == []
    assert snapshot(tmp_path) == before
    shutil.rmtree(tmp_path / cohort.name / "members/seed-0001/steps/step-00000030")
    (tmp_path / cohort.name / "members/seed-0000/steps/step-00000030/weights.safetensors").write_bytes(b"?")
    assert len(export_cohort(cohort, tmp_path, LIMIT)) == 2
    assert snapshot(tmp_path) == before


def test_only_completed_members_are_exported(cohort: Cohort, tmp_path: Path) -> None:
    other = copy_of(cohort, tmp_path / "training")
    other.member(1).set_status(Status("preempted", 10))
    export_cohort(other, tmp_path / "page", LIMIT)
    there = Cohort.open(tmp_path / "page" / other.name)
    assert [member.seed for member in there.members()] == [0]
    assert [path.name for path in (there.folder / "trajectory").iterdir()] == ["seed-0000--seed-0000.parquet"]


def test_what_does_not_fit_is_refused_and_what_is_not_committed_does_not_count(
    cohort: Cohort, tmp_path: Path
) -> None:
    export_cohort(cohort, tmp_path / "whole", LIMIT)
    whole = exported_bytes(tmp_path / "whole")
    with pytest.raises(RunError, match="is not exported"):
        export_cohort(cohort, tmp_path / "page", whole - 1)
    assert exported_bytes(tmp_path / "page") < whole
    for name in ("analysis", "pairs"):
        (tmp_path / "page" / cohort.name / name).mkdir()
        (tmp_path / "page" / cohort.name / name / "rows.jsonl").write_bytes(bytes(LIMIT))
    export_cohort(cohort, tmp_path / "page", whole)
    assert exported_bytes(tmp_path / "page") == whole


def test_the_table_says_how_each_member_was_made(cohort: Cohort, tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.mkdir()
    (page / "README.md").write_text(f"before\n{paper_members.BEGIN}\nold\n{paper_members.END}\nafter\n")
    arguments = ["--cohorts", str(cohort.folder.parent), "--to", str(page)]
    assert paper_members.main(["export", *arguments]) == 0
    text = (page / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    numerics = cohort.member(1).read_step(30).manifest.facts["numerics"]
    assert "| small | 1 | 30 | – |" in text
    assert f"| {numerics['precision']} | {numerics['compile']} | cpu | " in text
    assert paper_members.main(["export", *arguments, "--limit", "10"]) == 0  # all is there


def test_the_status_says_who_is_where(cohort: Cohort, tmp_path: Path, capsys) -> None:
    other = copy_of(cohort, tmp_path)
    member = other.member(3)
    member.write_config({"trainer": {"max_steps": 100, "convergence": {"accuracy": 0.9, "patience": 20}}})
    member.set_status(Status("running", 50))
    member.append_row({"kind": "train", "step": 50, "train/steps_per_second": 0.5})
    assert paper_members.last_step(member, member.rows()) == 100
    member.append_row({"kind": "evaluation", "step": 40, "eval/train/accuracy/tok": 0.95})
    asked = ("--cohorts", tmp_path, "--to", tmp_path / "page", "--jobs", "1", "small:0", "small:3", "small:4")
    assert paper_members.main(["status", *map(str, asked)]) == 0
    said = capsys.readouterr().out
    assert "completed at step 30 (all steps taken; best evaluation at step" in said
    assert ", not exported" in said
    assert "not running: step 50 of 60, least accuracy 0.9500 at 40, 0.50 steps/s, 0 h 00 min left" in said
    assert "waiting: step 0 of 60,000" in said


def test_a_log_keeps_one_row_of_a_step_and_no_place() -> None:
    start = {
        "kind": "start",
        "step": 0,
        "seed": 1,
        "cohort": {"name": "a", "root": "/some/where"},
        "extra": 1,
    }
    rows = [
        start,
        {"kind": "train", "step": 999, "loss": 1.0},
        {"kind": "train", "step": 1000, "loss": 0.123456789},
        {**start, "step": 900},
        {"kind": "train", "step": 1000, "loss": 0.123456789},
        {"kind": "failure", "step": 1000, "traceback": 'File "/some/where"\nValueError: no'},
    ]
    short = reduced(rows)
    assert [row["kind"] for row in short] == ["start", "train", "start", "failure"]
    assert short[0]["cohort"] == {"name": "a", "root": "cohorts"}
    assert (short[1]["loss"], "extra" in short[2]) == (0.123457, False)
    assert "/some/where" not in repr(short)


def test_the_best_evaluation_has_the_greatest_least_accuracy_then_the_least_loss() -> None:
    def row(step: int, accuracy: float, loss: float) -> dict:
        own = {"eval/a/accuracy/x": accuracy, "eval/b/accuracy/x": 1.0, "eval/a/loss/x": loss}
        return {"kind": "evaluation", "step": step, **own}

    rows = [row(1, 0.9, 2.0), row(2, 0.95, 2.0), row(3, 0.95, 1.0), row(4, 0.95, 1.0)]
    assert best_evaluation(rows) == (3, 0.95)
    assert best_evaluation(rows, [1, 2]) == (2, 0.95)
    assert best_evaluation([]) is None


def test_bounds_of_controls_are_not_kept_and_numbers_are_near() -> None:
    own = {"metric": "r2", "source_step": 1, "value": 1 / 3, "low": 0.1, "high": None}
    found = pl.read_parquet(encoded([{"role": "control", **own}, {"role": "estimate", **own}]))
    assert found["low"].to_list() == [None, pytest.approx(0.1, rel=2e-5)]
    assert found["high"].to_list() == [None, None]
    assert found["value"].to_list() == [pytest.approx(1 / 3, rel=2e-5)] * 2
