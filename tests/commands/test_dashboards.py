"""An offline sweep read back by W&B's own reader: every metric at every checkpoint, however it ran."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cohorts import arguments, cohort_in, memory_folder
from ended import REPOSITORY, check_refused

from polymorph.cli import command, train
from polymorph.cli.config import TrainConfig
from polymorph.store import Cohort
from polymorph.tracking.charts import REGIMES

STEPS = {0, 2}
SWEEP = [
    *("logger.mode=offline", "sae=quick", "sae.expansion=2", "sae.batch_size=64", "sae.online_steps=2"),
    *("trainer.max_steps=2", "trainer.log_every=1", "trainer.eval_every=2", "probe.fit=64", "probe.eval=64"),
    *("checkpoints.powers_until=0", "checkpoints.every=2"),
    *("callbacks.cross_seed.sae=online", "callbacks.cross_seed.steering=online"),
]


def overrides(root: Path, *own: str) -> list[str]:
    plain = [one for one in arguments(root) if one != "logger=none"]
    replaced = {one.partition("=")[0] for one in SWEEP}
    return [one for one in plain if one.partition("=")[0] not in replaced] + [*SWEEP, *own]


def swept(root: Path, *own: str) -> Cohort:
    """What `python train.py …` does, here."""
    many = ["-m"] if "-m" in own else []
    asked = overrides(root, *(one for one in own if one not in many))
    jobs = command.requests("train", TrainConfig, [*many, *asked])
    assert jobs is not None
    train.check(jobs)
    for job in jobs:
        train.perform(job)
    assert train.finish(jobs) == command.DONE
    return cohort_in(root)


def records(run: Path) -> list[dict[str, Any]]:
    """What a run holds once its end is there."""
    call = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(run)]
    for _ in range(50):
        text = subprocess.run(call, capture_output=True, text=True, check=True, timeout=60).stdout
        found = [json.loads(line) for line in text.splitlines()]
        if any(record["type"] == "exit" for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{run} has no end")


def shown(cohort: Cohort) -> dict[str, list[dict[int, dict[str, Any]]]]:
    """By kind of run, the metrics of every run by step."""
    found = defaultdict(list)
    for run in sorted((cohort.folder / "wandb").glob("offline-run-*")):
        own = records(run)
        assert not any("*" in record["metric"]["name"] for record in own if record["type"] == "metric")
        by_step: dict[int, dict[str, Any]] = defaultdict(dict)
        for record in own:
            if record["type"] == "history":
                item = record["history"]["item"]
                by_step[item.get("trainer/global_step")] |= item
        kind = next(record["run"]["job_type"] for record in own if record["type"] == "run")
        found[kind].append(dict(by_step))
    return found


def expected(sites: tuple[str, ...]) -> list[str]:
    maps = ("identity", "orthogonal", "similarity", "affine", "orthogonal_documents_permuted")
    saes = ("own", "naive", "mapped", "mapped_covariance_only")
    by_site = [
        *(f"r2/{name}" for name in maps),
        *(
            "frobenius_from_identity/orthogonal",
            "frobenius_haar/mean",
            "frobenius_haar/low",
            "frobenius_haar/high",
        ),
        *("verdict", "verdict_word", "determined_dimension/orthogonal", "pairing_p_value"),
        *(f"explained_variance/quick/{name}" for name in saes),
    ]
    steering = [
        f"compare/{sites[1]}/steering_regime/{name}/{regime}"
        for name in ("identity", "orthogonal", "orthogonal_tokens_permuted")
        for regime in REGIMES
    ]
    return [*(f"compare/{site}/{name}" for site in sites for name in by_site), *steering]


def check_whole(cohort: Cohort, members: int | None = None) -> dict[int, dict[str, Any]]:
    """The last run of the comparison, in which nothing is missing at any checkpoint."""
    runs = shown(cohort)
    comparison = next(run for run in runs["comparison"] if run)
    assert sum(map(bool, runs["comparison"])) == 1
    sites = tuple(f"blocks.0.hook_resid_{part}" for part in ("pre", "mid", "post"))
    assert comparison.keys() == STEPS
    for step, metrics in comparison.items():
        assert [name for name in expected(sites) if name not in metrics] == [], step
    assert len(runs["member"]) == (len(cohort.members()) if members is None else members)
    return comparison


@pytest.fixture(scope="module")
def stacked() -> Iterator[Cohort]:
    with memory_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        yield swept(folder, "seed=[0,1]")


def test_a_stack_tells_everything_while_it_trains(stacked: Cohort) -> None:
    check_whole(stacked)


def test_jobs_one_after_another_leave_the_same_dashboard(
    stacked: Cohort, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    cohort = swept(root, "-m", "seed=0,1")
    one, other = check_whole(stacked), check_whole(cohort)
    assert {step: set(metrics) for step, metrics in one.items()} == {
        step: set(metrics) for step, metrics in other.items()
    }
    before = len(list((cohort.folder / "wandb").glob("offline-run-*")))
    swept(root, "-m", "seed=0,1")  # nothing is new, so nothing is told again
    assert len(list((cohort.folder / "wandb").glob("offline-run-*"))) == before


def test_a_fault_of_the_dashboard_is_said_and_costs_nothing(
    stacked: Cohort, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(rows: object) -> None:
        raise ArithmeticError("something of ours")

    monkeypatch.delenv("WANDB_MODE", raising=False)
    shutil.copytree(stacked.folder, root / stacked.name)
    shutil.rmtree(root / stacked.name / "wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polymorph.pipeline.comparison_rows.metrics_of", breaks)
        swept(root, "seed=[0,1]")  # which says that it was done
    assert "no run of the comparison: ArithmeticError" in capsys.readouterr().out
    swept(root, "seed=[0,1]")  # and made up for by the next command
    check_whole(cohort_in(root), members=0)


@pytest.mark.slow
def test_jobs_beside_each_other_leave_the_same_dashboard(root: Path) -> None:
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    call = [sys.executable, str(REPOSITORY / "train.py"), "-m", *overrides(root, "seed=0,1,2", *launcher)]
    ended = subprocess.run(call, cwd=root, env=environment, capture_output=True, text=True, timeout=280)
    assert ended.returncode == command.DONE, ended
    check_whole(cohort_in(root))


# The workspace.


def lines(node: Any) -> Iterator[str]:
    """Every metric that a panel draws."""
    if isinstance(node, dict):
        yield from node.get("metrics", ())
        for value in node.values():
            yield from lines(value)
    elif isinstance(node, list):
        for value in node:
            yield from lines(value)


def test_the_workspace_draws_what_the_runs_hold(
    stacked: Cohort, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from polymorph.cli import dashboard
    from polymorph.cli.config import AnalyzeConfig

    dashboard.run(AnalyzeConfig(cohort=str(stacked.folder), dashboard="write"))
    written = json.loads((stacked.folder / "workspace.json").read_text())
    drawn = set(lines(written["spec"]))
    runs = [run for kind in shown(stacked).values() for run in kind]
    held = {name for run in runs for metrics in run.values() for name in metrics}
    allowed = (
        *(
            "_ceiling",
            "/pairing_gain/",
        ),  # these need an earlier checkpoint, and SAEs that know more than covariances
        "/steering_efficiency/",  # this needs own vectors that work
    )
    assert [name for name in drawn - held if not any(part in name for part in allowed)] == []
    sections = [one["name"] for one in written["spec"]["section"]["panelBankConfig"]["sections"]]
    assert [name.split(":")[0] for name in sections] == [
        *("Training", "Rotation", "Haar", "Verdict", "Transfer of SAEs", "Function")
    ]
    assert not any("*" in name for name in drawn)
    filters = json.dumps(written["spec"]["section"]["runSets"])
    assert f'"value": "{stacked.name}"' in filters
    assert str(stacked.folder / "workspace.json") in capsys.readouterr().out


def test_without_an_account_pushing_is_refused_and_an_unknown_word_too(
    stacked: Cohort, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    cohort = f"cohort={stacked.folder}"
    check_refused(run("analyze", cohort, "dashboard=push"), "wandb login")
    check_refused(run("analyze", cohort, "dashboard=pus"), "did you mean 'push'")
    check_refused(run("analyze", "cohort=planted:rotated", "dashboard=write"), "was not trained")


def test_an_analysis_tells_every_checkpoint_and_shows_tables_figures_and_artifacts_where_asked(
    stacked: Cohort, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polymorph.cli import analyze
    from polymorph.cli.config import analyze_schema
    from polymorph.tracking.config import LoggerConfig

    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = Path(shutil.copytree(stacked.folder, root / stacked.name))
    shutil.rmtree(folder / "wandb")
    logger = LoggerConfig(mode="offline", media=True, artifacts=True)
    asked = {"study": ["ladder"], "logger": logger, "accelerator": "cpu", "threads": 1}
    config = analyze_schema()(cohort=str(folder), **asked)
    assert analyze.run(config) == command.DONE
    runs = shown(Cohort.open(folder))
    (told,) = runs["analysis"]
    sites = tuple(f"blocks.0.hook_resid_{part}" for part in ("pre", "mid", "post"))
    for step in STEPS:
        assert [name for name in expected(sites) if name not in told[step]] == [], step
    kept = [record["artifact"] for run in (folder / "wandb").glob("offline-run-*") for record in records(run)
            if record["type"] == "artifact"]  # fmt: skip
    made = {one["type"] for one in kept if not one.get("use_after_commit")}
    used = {one["type"] for one in kept if one.get("use_after_commit")}
    assert {"sae", "maps", "report"} <= made
    assert used == {"checkpoint", "sae"}  # checkpoint → SAE → report
    assert list((folder / "wandb").rglob("media/table/tables/ladder*"))
    assert list((folder / "wandb").rglob("media/images/figures/r2_by_site*"))
