"""An analysis computes what is missing, says what it leaves out, and does nothing twice."""

import itertools
import pickle
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cohorts import UNWATCHED, memory_folder, snapshot, trained
from ended import Ended, Run
from sae_lens import StandardSAE, StandardSAEConfig

from polymorph.cli import analyze, command
from polymorph.cli.config import AnalyzeConfig
from polymorph.saes.stored import publish
from polymorph.saes.trained import TrainedSAE
from polymorph.store import Cohort
from polymorph.studies.registry import STUDIES

FEW = ("checkpoints.powers_until=0", "checkpoints.every=15")
NEEDING = {name for name, study in STUDIES.items() if name == "cycles" or study.needs_saes}
"""Studies that need more than two members without SAEs."""
EXACT = (
    1e-9  # pairs that are computed together share their sums, which differ in the last bits: 1e-12 was seen
)


@pytest.fixture(scope="module")
def watched() -> Iterator[Cohort]:
    """Two members that were compared while they trained."""
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1]", *FEW)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes nine tenths of an analysis; one of them, `analysed`, is drawn."""
    monkeypatch.setattr("polymorph.report.bundle.draw_all", lambda report: {})


@pytest.fixture
def mine(watched: Cohort, root: Path, no_figures: None) -> Cohort:
    """A copy to be changed."""
    shutil.copytree(watched.folder, root / watched.folder.name)
    return Cohort.open(root / watched.folder.name)


def analyse(run: Run, cohort: Cohort, *more: str, study: str = "study=[ladder]") -> Ended:
    own = ("cohort=small", "logger=none", "accelerator=cpu", "threads=1", study)
    return run("analyze", f"root={cohort.folder.parent}", *own, *more)


def ladder(cohort: Cohort) -> pl.DataFrame:
    return pl.read_parquet(cohort.folder / "analysis" / "default" / "ladder.parquet")


def rows_by_key(cohort: Cohort) -> dict[str, list[dict[str, Any]]]:
    """The rows of the ladder of every pair, as they are kept."""
    found = {}
    for path in sorted(cohort.pairs.folder.glob("seed-????--seed-????/*/rows.jsonl")):
        key = f"{path.parent.parent.name}/{path.parent.name}"
        found[key] = pl.read_ndjson(path.read_bytes(), infer_schema_length=None).to_dicts()
    return found


def pairs_of(table: pl.DataFrame) -> set[tuple[int, ...]]:
    return set(table.select("source", "target", "source_step", "target_step").unique().iter_rows())


@pytest.fixture(scope="module")
def analysed(watched: Cohort) -> Iterator[Cohort]:
    """The same, analysed once; not to be changed."""
    with memory_folder() as folder:
        shutil.copytree(watched.folder, folder / "small")
        arguments = ["cohort=small", f"root={folder}", "logger=none", "accelerator=cpu", "threads=1"]
        (config,) = command.requests("analyze", AnalyzeConfig, arguments)
        assert analyze.run(config) == command.DONE
        yield Cohort.open(folder / "small")


def test_twice_does_no_work(run: Run, analysed: Cohort) -> None:
    before = snapshot(analysed.folder)
    ended = analyse(run, analysed, study="study=all")
    assert ended.status == command.DONE
    assert "nothing new" in ended.out
    assert snapshot(analysed.folder) == before


def test_results_of_a_newer_program_are_refused_with_both_versions(run: Run, mine: Cohort) -> None:
    assert analyse(run, mine, "step=last").status == command.DONE
    record = mine.folder / "analysis" / "default" / "made_from.json"
    record.write_text(record.read_text().replace('"schema": "1.0"', '"schema": "2.0"'))
    before = snapshot(mine.folder)
    ended = analyse(run, mine, "step=last")
    assert ended.status == command.FAILED
    assert re.search(r"made_from\.json is of schema version 2\.0; this polymorph reads 1\.0", ended.err)
    assert snapshot(mine.folder) == before


def test_everything_that_was_compared_live_is_used(analysed: Cohort, watched: Cohort) -> None:
    """Only the pairs of the last checkpoints, whatever their steps, might be new; here they are not."""
    assert rows_by_key(analysed) == rows_by_key(watched)
    assert set(snapshot(analysed.folder / "analysis" / "default")) >= {
        "report.html",
        "claims.json",
        *(f"{name}.parquet" for name in STUDIES if name not in NEEDING),
    }


def test_a_study_whose_needs_are_not_met_has_no_table_and_a_reason(analysed: Cohort) -> None:
    """Two members do not close a cycle, and they have no SAEs."""
    folder = analysed.folder / "analysis" / "default"
    assert NEEDING - {"cycles"} == {"sae_transfer", "dictionary_match", "firing", "checkpoint_transfer"}
    assert not [name for name in NEEDING if (folder / f"{name}.parquet").exists()]
    page = (folder / "report.html").read_text()
    assert "it needs at least three members" in page
    assert f"studies of SAEs ({', '.join(sorted(NEEDING - {'cycles'}))})" in page
    assert "python train.py stage=sae" in page


def test_training_is_not_touched(analysed: Cohort, watched: Cohort) -> None:
    before, after = snapshot(watched.folder), snapshot(analysed.folder)
    assert {k: v for k, v in after.items() if not k.startswith("analysis/")} == before


def test_rows_computed_afterwards_are_those_of_the_callback(run: Run, mine: Cohort, watched: Cohort) -> None:
    shutil.rmtree(mine.pairs.folder)
    ended = analyse(run, mine)
    assert ended.status == command.DONE, ended
    live, later = rows_by_key(watched), rows_by_key(mine)
    assert live.keys() == later.keys()
    assert len(live) == 5  # the pair at three steps, and each member at 30 with itself at 15
    for key, rows in live.items():
        assert [without_value(row) for row in rows] == [without_value(row) for row in later[key]]
        for one, other in zip(rows, later[key], strict=True):
            for name in ("value", "low", "high"):
                assert other[name] == (
                    None if one[name] is None else pytest.approx(one[name], abs=EXACT, rel=EXACT)
                )


def without_value(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("value", "low", "high")}


def test_one_missing_pair_is_completed(run: Run, mine: Cohort, watched: Cohort) -> None:
    gone = next((mine.pairs.folder / "seed-0000--seed-0001").iterdir())
    shutil.rmtree(gone)
    ended = analyse(run, mine)
    assert ended.status == command.DONE
    assert "1 computed now" in ended.out
    assert rows_by_key(mine).keys() == rows_by_key(watched).keys()


def test_a_damaged_pair_is_computed_again(run: Run, mine: Cohort, watched: Cohort) -> None:
    rows = next((mine.pairs.folder / "seed-0000--seed-0001").glob("*/rows.jsonl"))
    rows.write_bytes(rows.read_bytes()[:-5])
    ended = analyse(run, mine)
    assert ended.status == command.DONE
    assert "computed again" in ended.out
    assert rows_by_key(mine).keys() == rows_by_key(watched).keys()


def test_a_new_member_makes_it_work_again(run: Run, mine: Cohort) -> None:
    assert analyse(run, mine).status == command.DONE
    trained(mine.folder.parent, "seed=2", *FEW, UNWATCHED)
    ended = analyse(run, mine)
    assert ended.status == command.DONE
    assert "nothing new" not in ended.out
    assert {(0, 2), (1, 2)} <= {(a, b) for a, b, *_ in pairs_of(ladder(mine))}


def test_jobs_of_their_own_are_compared_like_a_stack(
    run: Run, root: Path, analysed: Cohort, no_figures: None
) -> None:
    for seed in (0, 1):
        trained(root, f"seed={seed}", *FEW)
    apart = Cohort.open(root / "small")
    assert analyse(run, apart).status == command.DONE
    assert pairs_of(ladder(apart)) == pairs_of(ladder(analysed))


# What cannot be read.


def check_left_out(run: Run, cohort: Cohort, *expected: str) -> None:
    """It ends well and says what it left out, also in the report; or it says in one line why it does not."""
    ended = analyse(run, cohort)
    assert "Traceback" not in ended.err
    assert ended.status == command.DONE, ended
    assert "left out" in ended.out
    page = (cohort.folder / "analysis" / "default" / "report.html").read_text()
    for text in expected:
        assert text in ended.out
        assert text in page
    # What is whole was analysed all the same.
    assert (0, 1, 30, 30) in pairs_of(ladder(cohort))
    assert "nothing new" in analyse(run, cohort).out


def step_folder(cohort: Cohort, seed: int, step: int) -> Path:
    return cohort.member(seed).folder / "steps" / f"step-{step:08d}"


def test_a_truncated_checkpoint_is_left_out_and_listed(run: Run, mine: Cohort) -> None:
    path = step_folder(mine, 0, 15) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    check_left_out(run, mine, "step-00000015/weights.safetensors", "bytes where")


def test_an_altered_checkpoint_is_left_out_and_listed(run: Run, mine: Cohort) -> None:
    path = step_folder(mine, 0, 15) / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    check_left_out(run, mine, "step-00000015/weights.safetensors", "SHA-256")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("opened"),)


def test_a_pickle_in_a_checkpoint_is_not_opened(run: Run, mine: Cohort) -> None:
    (step_folder(mine, 1, 15) / "weights.pt").write_bytes(pickle.dumps(Bomb()))
    check_left_out(run, mine, "weights.pt", "pickle")


def test_a_pickle_under_the_name_of_weights_is_not_opened(run: Run, mine: Cohort) -> None:
    (step_folder(mine, 1, 15) / "weights.safetensors").write_bytes(pickle.dumps(Bomb()))
    check_left_out(run, mine, "step-00000015/weights.safetensors")


def with_saes(cohort: Cohort, sites: list[str]) -> Cohort:
    """An SAE of random weights for both members at their last two checkpoints."""
    for seed, step, site in itertools.product((0, 1), (15, 30), sites):
        sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=24))
        publish(cohort.member(seed), step, site, TrainedSAE(sae, "tiny"))
    return cohort


def test_a_damaged_sae_costs_its_own_rows_alone(run: Run, mine: Cohort) -> None:
    hurt, whole = sites = ["blocks.0.hook_resid_mid", "blocks.0.hook_resid_post"]
    path = with_saes(mine, sites).member(0).sae_path(30, hurt, "tiny") / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    studies = sorted(NEEDING - {"cycles"})
    ended = analyse(run, mine, study=f"study=[{','.join(studies)}]")
    assert ended.status == command.DONE, ended
    (said,) = [line for line in ended.out.splitlines() if line.startswith("left out")]
    assert said.startswith(f"left out: SAE: {path} has")
    assert "bytes where" in said
    folder = mine.folder / "analysis" / "default"
    assert str(path) in (folder / "report.html").read_text()
    found = {name: pl.read_parquet(folder / f"{name}.parquet") for name in studies}
    read = {
        name: set(rows.filter(pl.col("source_step") == 30).select("source", "site").iter_rows())
        for name, rows in found.items()
    }
    others = {(1, hurt), (0, whole), (1, whole)}
    assert read["sae_transfer"] == read["firing"] == others
    assert read["checkpoint_transfer"] == others
    compared = found["dictionary_match"].filter(metric="comparisons", arrangement="distinct")
    assert set(compared.select("site", "value").iter_rows()) >= {(hurt, 0), (whole, 1)}
    assert "nothing new" in analyse(run, mine, study=f"study=[{','.join(studies)}]").out


SOME = "study=[ladder,support,massive_activations,sae_transfer]"


def computed(ended: Ended) -> list[str]:
    """Which studies an analysis says that it computed."""
    (line,) = [line for line in ended.out.splitlines() if line.startswith("studies: ")]
    return line.removeprefix("studies: ").partition(" computed now")[0].split(", ")


def test_after_training_saes_the_studies_that_read_saes_are_computed_alone(run: Run, mine: Cohort) -> None:
    assert analyse(run, mine, study=SOME).status == command.DONE
    before = snapshot(mine.folder / "analysis" / "default")
    with_saes(mine, ["blocks.0.hook_resid_post"])
    ended = analyse(run, mine, study=SOME)
    assert computed(ended) == ["massive_activations", "sae_transfer"], ended
    after = snapshot(mine.folder / "analysis" / "default")
    same = {name for name, own in before.items() if after[name] == own}
    assert {"ladder.parquet", "support.parquet"} <= same
    assert "sae_transfer.parquet" in after.keys() - before.keys()
    assert "nothing new" in analyse(run, mine, study=SOME).out


def test_changing_a_dose_computes_steering_alone(run: Run, mine: Cohort) -> None:
    both = "study=[ladder,steering,support]"
    assert analyse(run, mine, "steering.doses=[1]", study=both).status == command.DONE
    assert computed(analyse(run, mine, "steering.doses=[1,2]", study=both)) == ["steering"]


def test_a_study_more_leaves_the_others_as_they_are(run: Run, mine: Cohort) -> None:
    assert analyse(run, mine, study="study=[ladder,support]").status == command.DONE
    assert computed(analyse(run, mine, study="study=[ladder,support,layers]")) == ["layers"]


def test_a_table_that_is_not_as_it_was_written_is_made_again(run: Run, mine: Cohort) -> None:
    both = "study=[ladder,support]"
    assert analyse(run, mine, study=both).status == command.DONE
    path = mine.folder / "analysis" / "default" / "support.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert computed(analyse(run, mine, study=both)) == ["support"]
    assert path.read_bytes() == whole


def test_a_study_of_another_version_is_made_again(
    run: Run, mine: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = "study=[ladder,support]"
    assert analyse(run, mine, study=both).status == command.DONE
    later = replace(STUDIES["support"], version=STUDIES["support"].version + 1)
    monkeypatch.setitem(STUDIES, "support", later)
    assert computed(analyse(run, mine, study=both)) == ["support"]


def test_without_any_last_checkpoint_the_others_remain(run: Run, mine: Cohort) -> None:
    path = step_folder(mine, 0, 30) / "weights.safetensors"
    path.write_bytes(b"")
    ended = analyse(run, mine)
    assert "Traceback" not in ended.err
    assert "step-00000030/weights.safetensors" in ended.out + ended.err
    assert ended.status in (command.DONE, command.FAILED)
