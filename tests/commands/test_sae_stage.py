"""`python train.py stage=sae`: which SAEs are trained, what is refused, and how it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from cohorts import (
    UNWATCHED,
    after_step,
    arguments,
    cohort_in,
    copy_of,
    end_of,
    exit_status,
    memory_folder,
    snapshot,
    start_child,
    status_of,
    trained,
)
from ended import Ended, Run, check_refused
from sae_lens import SAE, StandardSAE, StandardSAEConfig

from polymorph.cli import command, sae_stage
from polymorph.presets import CONF
from polymorph.saes.module import SAEModule
from polymorph.store import Cohort
from polymorph.tracking.loggers import Tracking
from polymorph.training.module import StackModule

FEW = ("checkpoints.powers_until=0", "checkpoints.every=15", UNWATCHED)
TINY = (
    "stage=sae",
    "sae.family=tiny",
    "sae.expansion=2",
    "sae.steps=5",
    "sae.batch_size=64",
    "sae.threads=1",
    "sae.log_every=2",
)
SITES = tuple(f"blocks.0.hook_resid_{where}" for where in ("pre", "mid", "post"))
LAST = 30


@pytest.fixture(scope="module")
def models() -> Iterator[Cohort]:
    """Two members with checkpoints at 0, 15 and 30, without SAEs."""
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1]", *FEW)


@pytest.fixture(scope="module")
def whole(models: Cohort) -> Iterator[Cohort]:
    """With an SAE for every member and site; not to be changed."""
    with memory_folder() as folder:
        cohort = copy_of(models, folder)
        assert exit_status(folder, *FEW, *TINY) == command.DONE
        yield cohort


@pytest.fixture
def cohort(models: Cohort, root: Path) -> Cohort:
    return copy_of(models, root)


@pytest.fixture
def mine(whole: Cohort, root: Path) -> Cohort:
    return copy_of(whole, root)


def asked(root: Path, *more: str) -> list[str]:
    """The request with some keys set otherwise; Hydra takes each once."""
    return list({o.split("=")[0]: o for o in arguments(root, *FEW, *TINY, *more)}.values())


def saes(run: Run, root: Path, *more: str) -> Ended:
    return run("train", *asked(root, *more))


def digests(cohort: Cohort) -> dict[tuple[int, int, str, str], str]:
    """Of every SAE, each verified by reading it."""
    return {
        (member.seed, *place): member.read_sae(*place).manifest.digest
        for member in cohort.members()
        for place in member.saes()
    }


# What is trained.


def test_every_member_and_site(run: Run, cohort: Cohort, root: Path, whole: Cohort) -> None:
    before = torch.get_rng_state()
    ended = saes(run, root)
    assert ended.status == command.DONE, ended
    assert ended.err == ""
    assert ended.out.splitlines() == [
        f"training 6 SAEs of tiny at step {LAST}, as one stack",
        f"6 of 6 SAEs of tiny are in {cohort.folder}",
        f"cohort: {cohort.folder}",
        f"next: python analyze.py cohort={cohort.folder}",
    ]
    assert torch.equal(torch.get_rng_state(), before)
    found = digests(cohort)
    assert set(found) == {(seed, LAST, site, "tiny") for seed in (0, 1) for site in SITES}
    assert found == digests(whole)
    notes = [SAE.load_from_disk(cohort.member(s).sae_path(*place)).cfg.metadata for s, *place in found]
    assert len({own.sae_seed for own in notes}) == 6
    assert [own.hook_name for own in notes] == [place[2] for place in found]


def test_twice_does_no_work(run: Run, mine: Cohort, root: Path) -> None:
    before = snapshot(root)
    ended = saes(run, root, "logger=csv")
    assert ended.status == command.DONE, ended
    assert "6 of 6 SAEs of tiny are there" in ended.out
    assert "training 6" not in ended.out
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("sae.members=[1]",), [(1, LAST, site, "tiny") for site in SITES]),
        ((f"sae.sites=[{SITES[1]}]",), [(seed, LAST, SITES[1], "tiny") for seed in (0, 1)]),
        (
            (f"sae.sites={SITES[0]}", "sae.members=0", "sae.variants=[shared,unrelated]"),
            [(0, LAST, SITES[0], name) for name in ("tiny-shared", "tiny-unrelated")],
        ),
        (
            (f"sae.sites={SITES[0]}", "sae.members=[0]", "sae.at=all"),
            [(0, step, SITES[0], "tiny") for step in (0, 15, LAST)],
        ),
        (
            (f"sae.sites={SITES[0]}", "sae.members=[0]", "sae.at=[15,0]"),
            [(0, step, SITES[0], "tiny") for step in (0, 15)],
        ),
    ],
)
def test_what_is_named_is_trained(
    run: Run, cohort: Cohort, root: Path, more: tuple[str, ...], expected: list[tuple[int, int, str, str]]
) -> None:
    assert saes(run, root, *more).status == command.DONE
    assert sorted(digests(cohort)) == sorted(expected)


def test_what_is_missing_is_added(run: Run, mine: Cohort, root: Path, whole: Cohort) -> None:
    shutil.rmtree(mine.member(1).sae_path(LAST, SITES[2], "tiny"))
    path = mine.member(0).sae_path(LAST, SITES[0], "tiny") / "cfg.json"
    path.write_bytes(path.read_bytes() + b" ")
    ended = saes(run, root)
    assert ended.status == command.DONE, ended
    assert "4 of 6 SAEs of tiny are there" in ended.out
    assert "training 2 SAEs" in ended.out
    assert ended.out.count("trained again: ") == 1
    assert digests(mine) == digests(whole)


def test_architectures_that_do_not_stack_are_said_to_be_slower(run: Run, cohort: Cohort, root: Path) -> None:
    ended = saes(run, root, "sae=jumprelu_x8", "sae.members=[0]")
    assert ended.status == command.DONE, ended
    assert f"training 3 SAEs of tiny at step {LAST}, one after another in each step" in ended.out
    for place in (places := cohort.member(0).saes()):
        assert SAE.load_from_disk(cohort.member(0).sae_path(*place)).cfg.architecture() == "jumprelu"
    assert len(places) == 3


def test_a_sweep_over_families(run: Run, cohort: Cohort, root: Path) -> None:
    others = [own for own in asked(root, "sae.members=[0]") if not own.startswith("sae.family=")]
    ended = run("train", "-m", *others, "sae.family=a,b")
    assert ended.status == command.DONE, ended
    assert {place[3] for place in digests(cohort)} == {"a", "b"}


def test_stage_all_trains_members_and_then_their_saes(run: Run, root: Path, whole: Cohort) -> None:
    ended = saes(run, root, "stage=all", "seed=[0,1]")
    assert ended.status == command.DONE, ended
    cohort = cohort_in(root)
    assert [status_of(cohort, seed).state for seed in (0, 1)] == ["completed", "completed"]
    assert digests(cohort) == digests(whole)
    before = snapshot(root)
    again = saes(run, root, "stage=all", "seed=[0,1]")
    assert again.status == command.DONE
    assert "left alone" in again.out
    assert snapshot(root) == before


def test_stage_all_is_about_its_own_seeds(run: Run, cohort: Cohort, root: Path) -> None:
    ended = saes(run, root, "stage=all", "seed=2", f"sae.sites=[{SITES[0]}]")
    assert ended.status == command.DONE, ended
    assert {place[0] for place in digests(cohort)} == {2}


# What is refused.

WRONG = {
    "other options": ("sae.steps=6", "sae.family=tiny", "steps: 5 there, 6 here", "another sae.family"),
    "another seed": ("sae.seed=1", "seed: 0 there, 1 here"),
    "a member that is not there": ("sae.members=[0,7]", "sae.members", "no seed 7", "there are 0, 1"),
    "a member in letters": ("sae.members=[x]", r"sae.members=\['x'\]", "whole numbers"),
    "a member twice": ("sae.members=[0,0]", r"sae.members=\[0, 0\]", "once"),
    "a site": ("sae.sites=[blocks.0.hook_resid_md]", "sae.sites=", "did you mean 'blocks.0.hook_resid_mid'"),
    "a site that is a number": ("sae.sites=3", "sae.sites=3", "one of blocks.0.hook_resid_pre"),
    "no site": ("sae.sites=[]", r"sae.sites=\[\]"),
    "a step": ("sae.at=[7]", "sae.at", "no checkpoint at step 7; there are 0, 15, 30"),
    "a step in letters": ("sae.at=first", "sae.at='first'", "all, last"),
    "a variant": ("sae.variants=[distict]", "sae.variants='distict'", "did you mean 'distinct'"),
    "a family that is no name": ("sae.family=a/b", "family='a/b'", "letters, digits"),
    "a family that is a variant": ("sae.family=tiny-again", "must not end in -again"),
    "an architecture": ("sae.architecture=standrad", "did you mean 'standard'"),
    "an option": ("+sae.options.l1_coeficient=1", "no such option", "did you mean 'l1_coefficient'"),
    "an option that is not one here": ("+sae.options.d_in=7", "sae.options.d_in", "follows from the cohort"),
    "an option's value": ("sae.options.normalize_activations=some", "normalize_activations=some"),
    "a group": ("sae=standrad_x8", "sae=standrad_x8", "standard_x8"),
    "no steps": ("sae.steps=0", "sae.steps=0", "at least 1"),
    "a schedule": ("sae.optimizer.lr_scheduler_name=cosine", "one of constant, cosineannealing"),
    "a misspelt key": ("sae.step=3", "sae.step", "'sae.steps'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_is_refused(run: Run, whole: Cohort, what: str) -> None:
    override, *expected = WRONG[what]
    before = snapshot(whole.folder.parent)
    check_refused(saes(run, whole.folder.parent, override), "^train: ", *expected)
    assert snapshot(whole.folder.parent) == before


def test_too_large_a_k_is_refused_before_anything_is_trained(run: Run, cohort: Cohort, root: Path) -> None:
    before = snapshot(root)
    ended = saes(run, root, "sae=topk_x8", "sae.options.k=33")
    check_refused(ended, "sae.options: topk of 32 features", "k=33")
    assert "training 6" not in ended.out
    assert snapshot(root) == before


def test_a_cohort_that_is_not_there_is_refused(run: Run, root: Path) -> None:
    check_refused(saes(run, root, "cohort.name=nowhere"), "nowhere")
    assert not list(root.iterdir())


def test_members_without_a_checkpoint_are_refused(run: Run, cohort: Cohort, root: Path) -> None:
    shutil.rmtree(cohort.member(1).folder / "steps")
    check_refused(saes(run, root, "sae.members=[0,1]"), "no seed 1 with a checkpoint; there are 0$")
    shutil.rmtree(cohort.member(0).folder / "steps")
    check_refused(saes(run, root), "cohort.name=small: no member has a checkpoint yet; train one first")
    assert not digests(cohort)


def test_too_little_memory_is_refused(
    run: Run, cohort: Cohort, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(root)
    monkeypatch.setattr(sae_stage, "_memory", lambda device: 1000)
    ended = saes(run, root)
    check_refused(ended, "sae.expansion=2, sae.batch_size=64", "6 SAEs of 16 → 32", r"sae.members=\[")
    assert snapshot(root) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cohort_of_others_is_refused(run: Run, cohort: Cohort, root: Path) -> None:
    cohort.folder.chmod(0o555)
    try:
        check_refused(saes(run, root), "cannot be written")
    finally:
        cohort.folder.chmod(0o755)


# What fails.


def test_a_damaged_checkpoint_is_an_error_of_one_line(run: Run, cohort: Cohort, root: Path) -> None:
    path = cohort.member(1).folder / "steps" / f"step-{LAST:08d}" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    ended = saes(run, root)
    assert ended.status == command.FAILED
    assert len(ended.err.strip().splitlines()) == 1
    assert "seed-0001/steps" in ended.err
    assert not digests(cohort)


def test_saes_that_are_not_finite_are_not_kept(run: Run, cohort: Cohort, root: Path) -> None:
    ended = saes(run, root, "sae.optimizer.lr=1e38", "sae.members=[0]")
    assert ended.status == command.FAILED
    assert ended.err == ""
    assert len(re.findall(r"seed 0 at \S+: not kept: .*not finite", ended.out)) == 3
    assert "0 of 3 SAEs of tiny are in" in ended.out
    assert not digests(cohort)


def test_stage_all_with_other_options_fails(run: Run, mine: Cohort, root: Path) -> None:
    before = snapshot(root)
    ended = saes(run, root, "stage=all", "seed=[0,1]", "sae.steps=6")
    assert ended.status in (command.WRONG, command.FAILED)
    assert "steps: 5 there, 6 here" in ended.out + ended.err
    assert snapshot(root) == before


# A polite end.


@contextmanager
def terminated_after(step: int) -> Iterator[None]:
    """SIGTERM arrives while the SAEs take this step."""
    original = SAEModule.training_step

    def training_step(self: SAEModule, batch: torch.Tensor, batch_idx: int) -> None:
        original(self, batch, batch_idx)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(SAEModule, "training_step", training_step):
        yield


def child(action: Callable[[], int]) -> int:
    return end_of(start_child(action))


def stopped_after(step: int, root: Path, *more: str) -> int:
    def action() -> int:
        with terminated_after(step):
            return exit_status(root, *[own for own in asked(root, *more) if own not in arguments(root)])

    return child(action)


def test_asked_to_stop_it_ends_with_143_and_publishes_nothing(
    run: Run, cohort: Cohort, root: Path, whole: Cohort
) -> None:
    before = snapshot(root, "rows.jsonl")
    assert stopped_after(2, root) == command.PREEMPTED
    after = snapshot(root, "rows.jsonl")
    assert {name: data for name, data in after.items() if "/unfinished/" not in name} == before
    assert len(after) == len(before) + 2, "a state and its manifest"
    ended = saes(run, root)
    assert ended.status == command.DONE
    assert "as one stack: goes on after step 2" in ended.out
    assert digests(cohort) == digests(whole)
    assert not any("/unfinished/" in name for name in snapshot(root))


def test_asked_after_the_last_step_it_is_done(cohort: Cohort, root: Path, whole: Cohort) -> None:
    assert stopped_after(5, root) == command.DONE
    assert digests(cohort) == digests(whole)


def test_a_damaged_one_is_not_taken_for_done(mine: Cohort, root: Path) -> None:
    path = mine.member(0).sae_path(LAST, SITES[0], "tiny") / "cfg.json"
    path.write_bytes(b"{}")
    assert stopped_after(2, root) == command.PREEMPTED


def test_later_jobs_are_not_started(cohort: Cohort, root: Path) -> None:
    def action() -> int:
        others = [own for own in asked(root) if own not in arguments(root) and "family" not in own]
        with terminated_after(2):
            return exit_status(root, *others, "sae.family=a,b", "--multirun")

    assert child(action) == command.PREEMPTED
    assert not digests(cohort)


@pytest.mark.slow
def test_members_that_are_stopped_have_no_saes_yet(root: Path) -> None:
    def terminate(module: StackModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    own = [*FEW, *TINY[1:], "stage=all", "seed=0,1", "--multirun"]

    def action() -> int:
        with after_step(7, terminate):
            return exit_status(root, *own)

    assert child(action) == command.PREEMPTED
    assert not digests(cohort_in(root))
    assert child(lambda: exit_status(root, *own)) == command.DONE
    assert len(digests(cohort_in(root))) == 6


@pytest.mark.slow
def test_the_command_itself_ends_with_143(cohort: Cohort, root: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(Path(CONF).parent / "train.py"), *asked(root, "sae.steps=100000")],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("training 6 SAEs")
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == command.PREEMPTED
    assert "the same request goes on from there" in out
    assert not digests(cohort)


# SAEs from elsewhere.


@pytest.fixture(scope="module")
def elsewhere(whole: Cohort) -> Path:
    """A folder as SAELens saves one."""
    return whole.member(1).sae_path(LAST, SITES[1], "tiny")


def attach(run: Run, root: Path, folder: Path, *more: str) -> Ended:
    own = (f"sae.attach={folder}", "sae.members=[0]", f"sae.sites=[{SITES[1]}]", "sae.family=elsewhere")
    return saes(run, root, *own, *more)


def test_an_sae_from_elsewhere_is_attached(run: Run, cohort: Cohort, root: Path, elsewhere: Path) -> None:
    ended = attach(run, root, elsewhere)
    assert ended.status == command.DONE, ended
    assert ended.err == ""
    assert f"attached {elsewhere} to seed 0 at {SITES[1]} as elsewhere" in ended.out
    assert set(digests(cohort)) == {(0, LAST, SITES[1], "elsewhere-attached")}
    place = cohort.member(0).saes()[0]
    there = SAE.load_from_disk(cohort.member(0).sae_path(*place)).state_dict()
    for name, value in SAE.load_from_disk(elsewhere).state_dict().items():
        assert torch.equal(value, there[name])
    before = snapshot(root)
    assert attach(run, root, elsewhere).status == command.DONE
    assert snapshot(root) == before
    assert attach(run, root, elsewhere, "sae.at=[15]").status == command.DONE
    assert {place[1] for place in digests(cohort)} == {15, LAST}


def other_sae(folder: Path, d: int) -> Path:
    StandardSAE(StandardSAEConfig(d_in=d, d_sae=2 * d)).save_model(folder)
    return folder


def nowhere(folder: Path) -> Path:
    return folder / "nowhere"


def no_sae(folder: Path) -> Path:
    folder.mkdir()
    (folder / "cfg.json").write_text("{}")
    (folder / "sae_weights.safetensors").write_bytes(b"")
    return folder


NOWHERE: dict[str, tuple[str, str]] = {
    "everybody": ("sae.members=all", r"say whose it is, with one each: sae.members=\[0\]"),
    "two members": ("sae.members=[0,1]", "say whose it is"),
    "all sites": ("sae.sites=all", "say whose it is"),
    "all steps": ("sae.at=all", "sae.at='all': last, or a list of one step"),
    "two steps": ("sae.at=[0,15]", r"sae.at=\[0, 15\]: last, or a list of one step"),
    "a member that is not there": ("sae.members=[7]", "no seed 7 with a checkpoint; there are 0, 1"),
    "a site that is not there": ("sae.sites=[here]", "sae.sites=here: one of blocks"),
    "a step that is not there": ("sae.at=[7]", "no checkpoint at step 7; there are 0, 15, 30"),
    "a family that is no name": ("sae.family=a/b", "family='a/b'"),
}


@pytest.mark.parametrize("what", NOWHERE)
def test_without_one_place_nothing_is_attached(run: Run, models: Cohort, elsewhere: Path, what: str) -> None:
    override, message = NOWHERE[what]
    before = snapshot(models.folder.parent)
    check_refused(attach(run, models.folder.parent, elsewhere, override), message)
    assert snapshot(models.folder.parent) == before


NOT_FITTING: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no folder": (nowhere, "cfg.json is missing"),
    "no SAE": (no_sae, "folder="),
    "another model's": (lambda folder: other_sae(folder, 8), "d_in=8 .*d_model=16"),
}


@pytest.mark.parametrize("what", NOT_FITTING)
def test_what_does_not_fit_is_not_attached(run: Run, models: Cohort, tmp_path: Path, what: str) -> None:
    make, message = NOT_FITTING[what]
    before = snapshot(models.folder.parent)
    check_refused(attach(run, models.folder.parent, make(tmp_path / "given")), message)
    assert snapshot(models.folder.parent) == before


def test_another_of_the_same_family_is_refused(
    run: Run, cohort: Cohort, root: Path, tmp_path: Path, elsewhere: Path
) -> None:
    assert attach(run, root, elsewhere).status == command.DONE
    before = snapshot(root)
    ended = attach(run, root, other_sae(tmp_path / "other", 16))
    check_refused(ended, "another SAE was attached", "another family")
    assert snapshot(root) == before


# What is shown.


def test_every_member_is_a_run_of_the_kind_sae(
    run: Run, cohort: Cohort, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(
        Tracking, "open", lambda self, name, kind, shown: opened.append((name, kind, dict(shown)))
    )
    assert saes(run, root, "sae.members=[0,1]").status == command.DONE
    assert [own[:2] for own in opened] == [("seed-0000-tiny", "sae"), ("seed-0001-tiny", "sae")]
    for seed, (_, _, shown) in enumerate(opened):
        assert shown["seed"] == seed
        assert shown["sae"]["family"] == "tiny"
        assert shown["sae"]["steps"] == 5
    opened.clear()
    assert saes(run, root).status == command.DONE
    assert opened == []  # there is nothing to show


def test_csv_holds_every_members_numbers(run: Run, cohort: Cohort, root: Path, whole: Cohort) -> None:
    assert saes(run, root, "logger=csv").status == command.DONE
    for seed in (0, 1):
        (table,) = (cohort.folder / "csv" / f"seed-000{seed}-tiny").rglob("metrics.csv")
        head, *rows = table.read_text().splitlines()
        assert len(rows) == 3  # at 2, 4 and 5
        for site in SITES:
            assert f"sae/tiny/{site}/explained_variance" in head
    assert digests(cohort) == digests(whole)


@pytest.mark.slow
def test_wandb_runs_offline_without_an_account(run: Run, cohort: Cohort, root: Path) -> None:
    ended = saes(run, root, "logger=wandb", "logger.mode=offline")
    assert ended.status == command.DONE, ended
    runs = sorted((cohort.folder / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    found = set()
    for own in runs:
        for _ in range(50):
            wandb = str(Path(sys.executable).parent / "wandb")
            text = subprocess.run(
                [wandb, "leet", "inspect", "--json", str(own)], capture_output=True, text=True, check=True
            ).stdout
            records = [json.loads(line) for line in text.splitlines()]
            if any(record["type"] == "exit" for record in records):
                break
            time.sleep(0.1)
        about = next(record["run"] for record in records if record["type"] == "run")
        found.add((about["display_name"], about["job_type"], about["run_group"]))
        assert "explained_variance" in text
    assert found == {("seed-0000-tiny", "sae", "small"), ("seed-0001-tiny", "sae", "small")}


def test_the_numbers_of_every_sae_are_in_the_log_of_its_member(whole: Cohort) -> None:
    for seed in (0, 1):
        rows = [row for row in whole.member(seed).rows() if row["kind"] == "sae"]
        assert rows
        sites = {key.split("/")[2] for key in rows[-1] if key.startswith("sae/")}
        assert sites == {site for _, site, _ in whole.member(seed).saes()}
        for row in rows:
            assert row["checkpoints"] == [whole.member(seed).steps()[-1]]
            assert {key.split("/")[3] for key in row if "/" in key} >= {"loss", "mse_loss", "l1_loss", "l0"}
