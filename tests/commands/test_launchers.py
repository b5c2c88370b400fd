"""Launchers of sweeps: the same members whoever starts the jobs, and a refusal before anything starts."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm_stand_in
from cohorts import UNWATCHED, all_weights, arguments, cohort_in, equal, memory_folder, status_of, trained
from ended import REPOSITORY, Run, check_refused
from omegaconf import OmegaConf

from polymorph.cli import command, extras, launchers
from polymorph.cli.config import TrainConfig
from polymorph.errors import RequestError
from polymorph.presets import CONF
from polymorph.store import Cohort


def plugin(extra: str) -> pytest.MarkDecorator:
    there = extras.is_installed(launchers.MODULES[extra])
    return pytest.mark.skipif(not there, reason=f"the extra {extra} is not installed")


needs_ray, needs_slurm = plugin("ray"), plugin("slurm")
PRESETS = sorted(path.stem for path in Path(CONF, "hydra", "launcher").glob("*.yaml"))
NAMES = [
    pytest.param(name, marks=plugin(extra)) for extra, names in launchers.EXTRAS.items() for name in names
]


def settings(*overrides: str) -> dict[str, Any]:
    whole = command.sweep("train", ["-m", "seed=0,1", *overrides])
    assert whole is not None
    found = OmegaConf.to_container(whole.hydra.launcher, resolve=True)
    assert isinstance(found, dict)
    return found


# What there is.


def test_every_preset_belongs_to_an_extra() -> None:
    assert PRESETS
    assert set(PRESETS) <= {name for names in launchers.EXTRAS.values() for name in names}


@pytest.mark.parametrize("name", ["basic", "joblib", *NAMES])
def test_every_launcher_composes(name: str) -> None:
    assert settings(f"hydra/launcher={name}")["_target_"].endswith("Launcher")


@needs_slurm
def test_a_slurm_job_gets_the_threads_that_are_used_and_is_queued_again() -> None:
    found = settings("hydra/launcher=slurm", "trainer.threads=3", "cohort.name=mine")
    assert (found["cpus_per_task"], found["name"]) == (3, "mine")
    assert found["max_num_timeout"] > 0
    assert 0 < found["signal_delay_s"] < min(600, 60 * found["timeout_min"])


@needs_ray
@pytest.mark.parametrize("name", ["ray_local", "ray_cluster"])
def test_a_job_of_ray_counts_with_the_threads_that_are_used(name: str) -> None:
    assert settings(f"hydra/launcher={name}", "trainer.threads=3")["ray"]["remote"]["num_cpus"] == 3


@needs_slurm
def test_a_launchers_keys_and_values_are_checked(run: Run, root: Path) -> None:
    slurm = (*arguments(root, "seed=0,1"), "hydra/launcher=slurm")
    check_refused(run("train", "-m", *slurm, "hydra.launcher.partion=x"), r"launcher\.part", "no such key")
    check_refused(run("train", "-m", *slurm, "hydra.launcher.timeout_min=x"), r"launcher\.timeout_min", "'x'")
    assert not list(root.iterdir())


# What is refused.


@pytest.mark.parametrize("extra", launchers.EXTRAS)
def test_a_launcher_that_is_not_installed_is_refused(
    run: Run, root: Path, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchers, "is_installed", lambda module: False)
    for name in launchers.EXTRAS[extra]:
        ended = run("train", "-m", *arguments(root, "seed=0,1"), f"hydra/launcher={name}")
        check_refused(ended, f"hydra/launcher={name}", rf'pip install "polymorph\[{extra}\]"')
    assert not list(root.iterdir())


def test_what_is_installed_is_found() -> None:
    assert extras.is_installed("hydra_plugins.hydra_joblib_launcher")
    assert not extras.is_installed("hydra_plugins.none")
    assert not extras.is_installed("no_plugins.none")


def test_a_launcher_that_there_is_not_is_refused(run: Run, root: Path) -> None:
    ended = run("train", "-m", *arguments(root, "seed=0,1"), "hydra/launcher=joblip")
    check_refused(ended, "hydra/launcher=joblip", "'joblib'", "one of basic, joblib")


def test_a_launcher_without_a_sweep_is_refused(run: Run, root: Path) -> None:
    """Hydra would train here and say nothing."""
    check_refused(run("train", *arguments(root), "hydra/launcher=joblib"), "hydra/launcher=joblib", "add -m")
    assert not list(root.iterdir())
    assert command.requests("train", TrainConfig, [*arguments(root), "hydra/launcher=basic"])


@needs_slurm
@pytest.mark.parametrize("name", ["slurm", "submitit_slurm"])
def test_slurm_is_refused_where_there_is_none(
    run: Run, root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(root))
    ended = run("train", "-m", *arguments(root, "seed=0,1"), f"hydra/launcher={name}")
    check_refused(ended, "no sbatch", "hydra/launcher=local")
    assert not list(root.iterdir())


NODES = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 4.0, "fast": 1.0}]
UNMET = {
    "more threads than a machine has": ({"num_cpus": 9}, r"num_cpus=9", "has 8"),
    "more GPUs than a machine has": ({"num_gpus": 5}, r"num_gpus=5", "has 4"),
    "something that none has": ({"resources": {"slow": 1}}, r"resources\.slow=1", "has 0"),
    "what no machine has together": ({"num_cpus": 8, "num_gpus": 4}, "num_cpus=8", "num_gpus=4", "all of it"),
    "a word": ({"num_cpus": "many"}, "num_cpus='many'", "a number"),
}
MET = [{}, {"num_cpus": None, "num_gpus": None}, {"num_cpus": 8, "num_gpus": 0.5}, {"resources": {"fast": 1}}]


@pytest.mark.parametrize("what", UNMET)
def test_what_no_machine_has_is_refused(what: str) -> None:
    remote, *expected = UNMET[what]
    with pytest.raises(RequestError, match=".*".join(expected)):
        launchers._check_room(launchers._asked(remote), NODES)


@pytest.mark.parametrize("remote", MET)
def test_what_a_machine_has_is_let_pass(remote: dict[str, Any]) -> None:
    launchers._check_room(launchers._asked(remote), NODES)


def test_an_empty_cluster_is_refused() -> None:
    with pytest.raises(RequestError, match="has 0"):
        launchers._check_room(launchers._asked({}), [])


@needs_ray
@pytest.mark.parametrize("name", ["ray", "ray_cluster"])
def test_a_cluster_that_does_not_answer_is_refused(run: Run, root: Path, name: str) -> None:
    """Ray itself would try for many minutes."""
    nobody = "hydra.launcher.ray.init.address=127.0.0.1:1"
    ended = run("train", "-m", *arguments(root, "seed=0,1"), f"hydra/launcher={name}", nobody)
    check_refused(ended, r"127\.0\.0\.1:1", "no cluster answers")
    assert not list(root.iterdir())


# Real jobs.


@pytest.fixture(scope="module")
def alone() -> Iterator[Cohort]:
    """The members as Hydra's basic launcher trains them, one after another."""
    with memory_folder() as folder:
        for seed in (0, 1):
            cohort = trained(folder, f"seed={seed}", UNWATCHED)
        yield cohort


def swept(root: Path, *overrides: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status and output of `python train.py -m seed=0,1 …`, given in the folder `root`."""
    given = arguments(Path(), "seed=0,1", UNWATCHED, *overrides)
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), "-m", *given],
        cwd=root,
        env={**(environment or os.environ), "HOME": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    return ended.returncode, ended.stdout


def check_equal(cohort: Cohort, other: Cohort) -> None:
    for seed in (0, 1):
        assert status_of(cohort, seed).state == "completed"
        assert equal(all_weights(cohort, seed), all_weights(other, seed))


@needs_slurm
@pytest.mark.slow
def test_jobs_of_submitit_train_the_same_members(root: Path, alone: Cohort) -> None:
    status, text = swept(root, "hydra/launcher=local")
    assert status == command.DONE, text
    check_equal(cohort_in(root), alone)


@needs_slurm
@pytest.mark.slow
def test_slurm_jobs_that_come_to_their_limit_are_queued_again_and_lose_no_step(root: Path) -> None:
    """The limit comes between two checkpoints: who went back to the first would never pass it."""
    long = ("trainer.max_steps=800", "checkpoints.every=800", "trainer.eval_every=800")
    folder = root / "slurm"
    folder.mkdir()
    environment = slurm_stand_in.install(folder, awaits=root / "small/members/seed-0001/state/step-00000004")
    status, text = swept(
        root, *long, "hydra/launcher=slurm", "hydra.launcher.partition=p", environment=environment
    )
    printed = "".join(path.read_text() for path in sorted(root.rglob("*_log.out")))
    assert status == command.DONE, text + printed
    script = (folder / "script.sh").read_text()
    for line in ("partition=p", "job-name=small", "cpus-per-task=1", "gpus-per-node=1", "array=0-1%2"):
        assert f"#SBATCH --{line}\n" in script
    went_on = re.search(r"training seed 1 as one stack: continue after step (\d+)", printed)
    assert went_on, printed
    assert 4 < int(went_on[1]) < 800
    check_equal(cohort_in(root), both(root / "other", *long))


def both(root: Path, *overrides: str) -> Cohort:
    for seed in (0, 1):
        trained(root, f"seed={seed}", UNWATCHED, *overrides)
    return cohort_in(root)


@needs_ray
@pytest.mark.slow
def test_jobs_of_a_ray_of_ones_own_train_the_same_members(root: Path, alone: Cohort) -> None:
    status, text = swept(root, "hydra/launcher=ray_local", "hydra.launcher.ray.init.num_cpus=2")
    assert status == command.DONE, text
    check_equal(cohort_in(root), alone)


@needs_ray
@pytest.mark.slow
def test_more_than_this_machine_has_is_refused_before_a_job_starts(root: Path) -> None:
    asked = ("hydra.launcher.ray.init.num_cpus=1", "hydra.launcher.ray.remote.num_cpus=2")
    status, text = swept(root, "hydra/launcher=ray_local", *asked)
    assert status == command.WRONG, text
    assert "num_cpus=2: the largest machine of the cluster has 1" in text
    assert not (root / "small").exists()
