"""What wrong input gets: one line that says what would be right, exit status 2, and nothing written."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cohorts import UNWATCHED, arguments, memory_folder, snapshot, trained
from ended import Ended, Run, check_refused

from polymorph.cli import command
from polymorph.store import Cohort


@pytest.fixture(scope="module")
def there() -> Iterator[Cohort]:
    """A cohort of two members that were trained."""
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1]", UNWATCHED)


@pytest.fixture
def mine(there: Cohort, root: Path) -> Cohort:
    """A copy of it, to be damaged."""
    shutil.copytree(there.folder, root / there.folder.name)
    return Cohort.open(root / there.folder.name)


# Training.

VALUES = {
    "a misspelt key": ("trainer.max_step=3", r"trainer\.max_step\b", r"no such key", r"'trainer\.max_steps'"),
    "a misspelt group": ("cohrt.name=x", r"cohrt\.name", r"'cohort\.name'"),
    "a key that is not near any": ("zzzzzz=1", "zzzzzz", "no such key"),
    "an added key": ("+trainer.warmup=3", r"trainer\.warmup", "no such key|not in"),
    "a text for a number": ("trainer.max_steps=many", r"trainer\.max_steps", "many", "[Ii]nteger|whole|int"),
    "a fraction for a whole number": ("trainer.batch_size=1.5", r"trainer\.batch_size", r"1\.5"),
    "a text for a switch": ("trainer.compile=perhaps", r"trainer\.compile", "perhaps", "true, false or auto"),
    "a number for a section": ("trainer=3", "trainer"),
    "a negative seed": ("seed=-1", r"seed=-1", "whole number from 0"),
    "a repeated seed": ("seed=[0,0]", r"seed=\[0, 0\]", "repeated"),
    "a seed in letters": ("seed=abc", "seed='abc'", "whole number from 0"),
    "a seed in fractions": ("seed=1.5", r"seed=1\.5", "whole number from 0"),
    "a seed that is true": ("seed=true", "seed=True", "whole number from 0"),
    "a seed of nothing": ("seed=null", "seed=None", "whole number from 0"),
    "no seeds": ("seed=[]", r"seed=\[\]", "no seed"),
    "seeds in a list in a list": ("seed=[[0]]", r"seed=\[\[0\]\]", "whole number from 0"),
    "a seed that is too large": ("seed=4294967296", "seed=4294967296", "whole number from 0"),
    "another experiment": ("experiment=qick", "experiment=qick", r"one of paper, quick"),
    "another cohort": ("cohort=shared", "cohort=shared", "'shared_io'"),
    "another logger": ("logger=wandbb", "logger=wandbb", "'wandb'"),
    "another stage": ("stage=modle", "stage='modle'", "'model'"),
    "another accelerator": ("trainer.accelerator=cuda", r"trainer\.accelerator='cuda'", "auto, cpu, gpu"),
    "no steps": ("trainer.max_steps=0", r"trainer\.max_steps=0", "at least 1"),
    "no batch": ("trainer.batch_size=-4", r"trainer\.batch_size=-4", "at least 1"),
    "no threads": ("trainer.threads=0", r"trainer\.threads=0", "at least 1, or null"),
    "no cadence": ("checkpoints.every=0", r"checkpoints\.every=0", "at least 1"),
    "a beta of one": ("optimizer.beta1=1.0", r"optimizer\.beta1=1\.0", "from 0 up to"),
    "a rate that is not a number": ("optimizer.lr=nan", r"optimizer\.lr"),
    "a rate below zero": ("optimizer.lr=-1", r"optimizer\.lr=-1", "at least 0"),
    "a probe of one document": ("probe.fit=1", r"probe\.fit=1", "at least 2"),
    "a narrow model": ("model.d_model=2", r"model\.d_model=2", "at least 6"),
    "a model too short for the task": ("model.n_ctx=32", r"task\.context=64", r"model\.n_ctx=32"),
    "a name with a slash": ("cohort.name=a/b", r"cohort\.name='a/b'", "letters, digits"),
    "a name that leads upwards": ("cohort.name=..", r"cohort\.name='\.\.'", "letters, digits"),
    "a donor without need": ("cohort.donor=3", r"cohort\.donor=3", "shared_io"),
    "no value": ("trainer.max_steps=", r"trainer\.max_steps"),
    "no grammar of Hydra's": ("seed=[0", r"seed|\["),
    "a missing interpolation": ("cohort.name=${nowhere}", "nowhere"),
}


@pytest.mark.parametrize("what", VALUES)
def test_a_wrong_value_is_refused(run: Run, root: Path, what: str) -> None:
    override, *expected = VALUES[what]
    ended = run("train", *(a for a in arguments(root) if a.split("=")[0] != override.split("=")[0]), override)
    check_refused(ended, "^train: ", *expected)
    assert not list(root.iterdir())


@pytest.mark.parametrize("what", ["a misspelt key", "a negative seed", "another experiment", "no steps"])
def test_it_is_refused_in_a_sweep_too(run: Run, root: Path, what: str) -> None:
    override, *expected = VALUES[what]
    key = override.split("=")[0]
    others = [a for a in arguments(root) if a.split("=")[0] != key]
    right = {"seed": "0", "experiment": "quick", "trainer.max_steps": "30"}.get(key, "1")
    ended = run("train", "-m", *others, f"{key}={right},{override.split('=')[1]}")
    check_refused(ended, "^train: ", *expected)
    assert not list(root.iterdir())


def test_a_seed_twice_in_a_sweep_is_refused(run: Run, root: Path) -> None:
    check_refused(run("train", "-m", *arguments(root), "seed=0,0"), "seed=0", "twice", "once is enough")
    check_refused(run("train", "-m", *arguments(root), "seed=[0,1],[1,2]"), "seed=1", "twice")
    assert not list(root.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_refused(run: Run, root: Path) -> None:
    ended = run("train", *(a for a in arguments(root) if "accelerator" not in a), "trainer.accelerator=gpu")
    check_refused(ended, r"trainer\.accelerator=gpu", "there is no GPU", "cpu")
    assert not list(root.iterdir())


def test_a_file_in_the_way_is_refused(run: Run, root: Path) -> None:
    (root / "file").write_text("mine")
    check_refused(run("train", *arguments(root / "file")), r"cohort\.root", "file", "cannot be written")
    assert snapshot(root) == {"file": b"mine"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others_is_refused(run: Run, root: Path) -> None:
    (root / "theirs").mkdir(mode=0o555)
    check_refused(run("train", *arguments(root / "theirs")), r"cohort\.root", "cannot be written")


@pytest.mark.parametrize(
    ("override", "part", "values"),
    [
        ("model.d_mlp=48", "architecture", r"d_mlp: 32 there, 48 here"),
        ("task.max_depth=7", "task", r"max_depth: 8 there, 7 here"),
        ("probe.seed=5", "probe", r"seed: 0 there, 5 here"),
    ],
)
def test_a_cohort_of_something_else_is_refused(
    run: Run, mine: Cohort, root: Path, override: str, part: str, values: str
) -> None:
    before = snapshot(root)
    more = ["model.n_depth=8"] if part == "task" else []
    asked = [a for a in arguments(root, "seed=5") if a.split("=")[0] != override.split("=")[0]]
    ended = run("train", *asked, override, *more)
    check_refused(ended, part if not more else "another", values if not more else "there", r"cohort\.name")
    assert snapshot(root) == before


@pytest.mark.parametrize(
    "override", ["trainer.max_steps=60", "optimizer.lr=0.5", "checkpoints.every=7", "trainer.eval_every=3"]
)
def test_a_member_of_another_config_is_refused(run: Run, mine: Cohort, root: Path, override: str) -> None:
    before = snapshot(root)
    key, value = override.split("=")
    asked = [a for a in arguments(root, "seed=[1,2]") if a.split("=")[0] != key]
    check_refused(run("train", *asked, override), re.escape(key), f"{value} here", r"cohort\.name")
    assert snapshot(root) == before


def test_a_donor_that_is_not_there_is_refused(run: Run, root: Path) -> None:
    ended = run("train", *arguments(root, "cohort=shared_io", "seed=1"))
    check_refused(ended, r"cohort\.donor=0", "not there", "train seed=0 first")
    assert not list(root.iterdir())


@pytest.mark.parametrize("name", ["cohort.json", "members/seed-0001/config.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04.", b'{"a": ${oc.env:HOME}}'])
def test_a_damaged_cohort_is_an_error_of_one_line(
    run: Run, mine: Cohort, root: Path, name: str, content: bytes
) -> None:
    (mine.folder / name).write_bytes(content)
    before = snapshot(root)
    ended = run("train", *arguments(root, "seed=[0,1]", UNWATCHED))
    assert ended.status != command.DONE
    assert len(ended.err.strip().splitlines()) == 1
    assert (Path(name).parent.name or name) in ended.err
    assert snapshot(root) == before


# Analysis.


def analyse(run: Run, root: Path, *more: str) -> Ended:
    return run("analyze", f"root={root}", "logger=none", "accelerator=cpu", "threads=1", *more)


ASKED = {
    "another cohort": ("cohort=smal", "cohort=smal", "'small'"),
    "a cohort like no other": ("cohort=zzz", "cohort=zzz", "there: small"),
    "a study that is not there": ("cohort=small study=[lader]", "study='lader'", "'ladder'"),
    "a step that is not there": ("cohort=small step=[7]", "step=7", r"0, 1, 2, 4, 10, .*20, 30"),
    "a step in letters": ("cohort=small step=newest", "step='newest'", "all, last"),
    "a negative step": ("cohort=small step=[-1]", r"step=\[-1\]", "all, last"),
    "a seed that is not there": ("cohort=small seeds=[0,7]", r"seeds=\[0, 7\]", "no seed 7"),
    "a seed in letters": ("cohort=small seeds=[x]", "seeds", "'x'"),
    "one seed": ("cohort=small seeds=[0]", "cohort=small", "at least two"),
    "a misspelt key": ("cohort=small seed=[0,1]", r"\bseed\b", "'seeds'"),
    "no threads": ("cohort=small threads=0", "threads=0", "at least 1"),
    "a name with a slash": ("cohort=small name=a/b", r"\bname='a/b'", "letters, digits"),
    "a name that leads upwards": ("cohort=small name=..", r"\bname='\.\.'", "letters, digits"),
    "another accelerator": ("cohort=small accelerator=tpu", "accelerator='tpu'", "auto, cpu, gpu"),
    "a component that is not there": ("cohort=small components=[L0H9]", "components=L0H9", "L0H0, L0H1"),
    "components in a word": ("cohort=small components=heads", "components='heads'", "a list of names"),
    "no cohort": ("", "cohort", "[Mm]issing|mandatory|cohort="),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_wrong_analysis_is_refused(run: Run, there: Cohort, what: str) -> None:
    overrides, *expected = ASKED[what]
    before = snapshot(there.folder.parent)
    asked = ["logger=none", "accelerator=cpu", "threads=1", *overrides.split()]
    last = {o.split("=")[0]: o for o in asked}  # Hydra takes each key once
    ended = run("analyze", f"root={there.folder.parent}", *last.values())
    check_refused(ended, "^analyze: ", *expected)
    assert snapshot(there.folder.parent) == before


def test_a_cohort_of_one_is_refused(run: Run, mine: Cohort, root: Path) -> None:
    shutil.rmtree(mine.member(1).folder)
    before = snapshot(root)
    check_refused(
        analyse(run, root, "cohort=small"), "cohort=small", "at least two", "there is 1", "train another"
    )
    assert snapshot(root) == before


def test_an_empty_cohort_is_refused(run: Run, mine: Cohort, root: Path) -> None:
    shutil.rmtree(mine.folder / "members")
    before = snapshot(root)
    check_refused(analyse(run, root, "cohort=small"), "cohort=small", "at least two", "there are 0")
    assert snapshot(root) == before


def test_where_there_is_no_cohort_at_all(run: Run, root: Path) -> None:
    check_refused(analyse(run, root / "nowhere", "cohort=small"), "cohort=small", "there: none")
    assert not list(root.iterdir())


def test_a_file_where_results_belong_is_an_error_of_one_line(run: Run, mine: Cohort, root: Path) -> None:
    shutil.rmtree(mine.folder / "analysis", ignore_errors=True)
    (mine.folder / "analysis").write_text("mine")
    ended = analyse(run, root, "cohort=small", "step=last")
    assert ended.status in (command.WRONG, command.FAILED)
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert "analysis" in ended.err
    assert (mine.folder / "analysis").read_text() == "mine"


def test_a_damaged_cohort_is_not_analysed(run: Run, mine: Cohort, root: Path) -> None:
    (mine.folder / "cohort.json").write_bytes(b"{}")
    before = snapshot(root)
    ended = analyse(run, root, "cohort=small")
    assert ended.status != command.DONE
    assert len(ended.err.strip().splitlines()) == 1
    assert "cohort.json" in ended.err
    assert snapshot(root) == before


def test_the_small_request_is_right(run: Run, root: Path) -> None:
    """Or every refusal above might have another reason."""
    ended = run("train", *arguments(root, UNWATCHED, "seed=1"))
    assert ended.status == command.DONE, ended
    assert ended.err == ""
