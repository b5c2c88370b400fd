"""W&B as a view: offline without an account, a run a member, and no fault of its that reaches training."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from lightning.pytorch.loggers import Logger
from PIL import Image

from polymorph.tracking.config import LoggerConfig, resolve_mode
from polymorph.tracking.loggers import Breaker, Tracking
from polymorph.tracking.runs import AXIS, Artifact


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_without_an_account_the_mode_is_offline_and_with_one_online(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert resolve_mode("auto") == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert resolve_mode("auto") == "online"
    assert resolve_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto") == "disabled"


def records(run: Path) -> list[dict[str, object]]:
    """What an offline run holds, read back by W&B's own reader."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(run)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [json.loads(line) for line in text.splitlines()]


def whole(run: Path) -> list[dict[str, object]]:
    """The records once the run's end is among them; the file is complete a moment after `finish`."""
    for _ in range(50):
        found = records(run)
        if any(record["type"] == "exit" for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{run} has no end")


def test_two_members_are_two_offline_runs_of_one_group_with_the_training_step_as_axis(tmp_path: Path) -> None:
    tracking = Tracking(LoggerConfig(), tmp_path / "some-cohort")
    loggers = [tracking.open(f"seed-000{i}", "member", {"seed": i}) for i in range(2)]
    for step in (10, 20):
        for seed, logger in enumerate(loggers):
            assert logger is not None
            logger.log_metrics({"train/loss": seed + 1 / step}, step)
    for logger in loggers:
        assert logger is not None
        logger.finish(0)
    runs = sorted((tmp_path / "some-cohort" / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    found = [whole(run) for run in runs]
    about = [next(record["run"] for record in each if record["type"] == "run") for each in found]
    assert {run["display_name"] for run in about} == {"seed-0000", "seed-0001"}
    assert {run["run_group"] for run in about} == {"some-cohort"}
    for each, run in zip(found, about, strict=True):
        history = json.dumps([record for record in each if record["type"] == "history"])
        seed = int(run["display_name"][-1])
        assert "trainer/global_step" in history
        assert str(seed + 0.05) in history
        assert str(1 - seed + 0.05) not in history  # the other member's numbers went to the other run


def opened(tmp_path: Path, **options: object) -> tuple[Breaker, Path]:
    """A run of the comparison of one cohort, and the folder of its record."""
    logger = Tracking(LoggerConfig(**options), tmp_path / "some-cohort").open(
        "comparison", "comparison", {}, ["quick"]
    )
    assert logger is not None
    (run,) = (tmp_path / "some-cohort" / "wandb").glob("offline-run-*")
    return logger, run


def test_every_metric_has_the_training_step_as_its_axis_by_its_exact_name(tmp_path: Path) -> None:
    logger, run = opened(tmp_path, tags=["mine"])
    names = {"train/loss", "compare/blocks.0.hook_resid_mid/r2/affine"}
    for step in (1, 2):
        logger.log_metrics(dict.fromkeys(names, 0.5), step)
    logger.finish(0)
    found = whole(run)
    axes = {r["metric"]["name"]: r["metric"].get("step_metric") for r in found if r["type"] == "metric"}
    assert axes == {**dict.fromkeys(names, AXIS), AXIS: None}
    assert not any("*" in name for name in axes)
    about = next(record["run"] for record in found if record["type"] == "run")
    assert about["tags"] == ["comparison", "quick", "mine"]


def test_a_run_that_goes_on_can_be_read(tmp_path: Path) -> None:
    logger, run = opened(tmp_path)
    logger.log_metrics({"train/loss": 0.25}, 1)
    for _ in range(100):
        if any(record["type"] == "history" for record in records(run)):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("nothing was to be seen before the run ended")
    logger.finish(0)


def test_media_and_artifacts_stay_in_the_cohort_and_know_what_they_are_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    logger, run = opened(tmp_path)
    manifest, page = tmp_path / "manifest.json", tmp_path / "report.html"
    manifest.write_text("{}")
    page.write_text("a report")
    checkpoint = Artifact("a-checkpoint", "checkpoint", {"manifest.json": manifest}, {"digest": "abc"})
    report = Artifact("a-report", "report", {"report.html": page}, lasting=False)
    logger.show(
        lambda own: own.log_table("ladder", pl.DataFrame({"value": [0.5, None], "map": ["affine", None]}))
    )
    logger.show(lambda own: own.log_figure("r2", png(), "what it shows"))
    logger.show(lambda own: own.log_artifact(report, [checkpoint]))
    logger.finish(0)
    found = whole(run)
    kept = {r["artifact"]["name"]: r["artifact"] for r in found if r["type"] == "artifact"}
    assert kept["a-checkpoint"].get("use_after_commit") is True  # it is an input of this run
    assert kept["a-report"].get("use_after_commit") is None  # and this one an output
    assert "abc" in kept["a-checkpoint"]["metadata"]
    assert list(run.rglob("media/table/tables/*.json"))
    assert list(run.rglob("media/images/figures/*.png"))
    assert not list(home.rglob("artifacts"))
    assert "WANDB_DATA_DIR" not in os.environ


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_only_wandb_can_hold_is_left_out_elsewhere(tmp_path: Path) -> None:
    logger = Tracking(LoggerConfig(kind="csv"), tmp_path).open("seed-0000", "member", {})
    assert logger is not None
    logger.show(lambda run: pytest.fail("this is no run of W&B"))
    assert logger.inner is not None


class Broken(Logger):
    def __init__(self) -> None:
        self.calls = 0

    name = version = "broken"

    def log_metrics(self, metrics: object, step: int | None = None) -> None:
        self.calls += 1
        raise BrokenPipeError("the service is gone")

    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None: ...


def test_a_logger_that_fails_is_let_go_with_one_warning() -> None:
    broken, ended = Broken(), []
    breaker = Breaker(broken, ended.append)
    with pytest.warns(UserWarning, match="logging stopped: BrokenPipeError") as warned:
        for step in range(5):
            breaker.log_metrics({"loss": 1.0}, step)
        breaker.finish(0)
    assert len(warned) == 1
    assert broken.calls == 1
    assert ended == []


def test_csv_and_none(tmp_path: Path) -> None:
    assert Tracking(LoggerConfig(kind="none"), tmp_path).open("seed-0000", "member", {}) is None
    logger = Tracking(LoggerConfig(kind="csv"), tmp_path).open("seed-0000", "member", {})
    assert logger is not None
    logger.log_metrics({"train/loss": 0.5}, 10)
    logger.finish(0)
    (table,) = (tmp_path / "csv" / "seed-0000").rglob("metrics.csv")
    assert "0.5" in table.read_text()


def test_a_kind_that_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"logger.kind='wanb' \(did you mean 'wandb'\?\)"):
        LoggerConfig(kind="wanb")
