"""`polymorph list|status|verify|prune|export`: what is said of a cohort, what is removed, and what is copied."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cohorts import UNWATCHED, copy_of, memory_folder, snapshot, trained

from polymorph.cli.ending import DONE, FAILED, WRONG
from polymorph.cli.main import main
from polymorph.store import Cohort, Status
from polymorph.store.process_liveness import PREFIX


@pytest.fixture(scope="module")
def there() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, "seed=[0,1]", UNWATCHED)


@pytest.fixture
def mine(there: Cohort, root: Path) -> Cohort:
    return copy_of(there, root)


def of(cohort: Cohort, name: str, *more: str) -> int:
    return main([name, cohort.name, "--root", str(cohort.folder.parent), *more])


def test_a_list_names_every_cohort_with_its_members(
    mine: Cohort, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.member(1).set_status(Status("preempted", 10))
    assert main(["list", str(root)]) == DONE
    assert capsys.readouterr().out == (
        "small: 2 members (1 completed, 1 preempted), checkpoints up to step 30\n"
    )


def test_a_cohort_that_cannot_be_read_is_listed_too(
    mine: Cohort, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine.folder / "cohort.json").write_text("{}")
    assert main(["list", str(root)]) == DONE
    assert "small: cannot be read" in capsys.readouterr().out


def test_the_status_says_where_each_member_stands(mine: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert of(mine, "status") == DONE
    out = capsys.readouterr().out
    assert "seed 0: completed at step 30" in out
    assert "least accuracy" in out
    assert "0 SAEs" in out
    (mine.member(0).folder / "status.json").write_text("{}")
    assert of(mine, "status") == DONE
    assert "seed 0: unreadable" in capsys.readouterr().out


def test_a_whole_cohort_is_whole(mine: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(mine.folder)
    assert of(mine, "verify") == DONE
    assert " whole" in capsys.readouterr().out
    assert snapshot(mine.folder) == before


DAMAGE = {
    "a checkpoint": "members/seed-0000/steps/step-00000010/weights.safetensors",
    "a state": "members/seed-0001/state/step-00000030/state.safetensors",
    "a status": "members/seed-0001/status.json",
    "a manifest": "members/seed-0000/steps/step-00000030/manifest.json",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_named(mine: Cohort, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = mine.folder / DAMAGE[what]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert of(mine, "verify") == FAILED
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"damaged: {Path(DAMAGE[what]).parent}")
    assert last.startswith("small: 1 of ")


def test_a_lost_manifest_is_damage(mine: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    (mine.folder / DAMAGE["a manifest"]).unlink()
    assert of(mine, "verify") == FAILED
    assert "manifest.json is missing" in capsys.readouterr().out


def test_pruning_says_first_and_removes_on_request(mine: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    leftover = mine.member(0).folder / f"{PREFIX}-elsewhere-1-1-00000000"
    leftover.mkdir()
    os.utime(leftover, (0, 0))  # of another machine, so that only its age tells
    before = {seed: mine.member(seed).states() for seed in (0, 1)}
    assert all(len(states) == 2 for states in before.values())
    whole = snapshot(mine.folder)
    assert of(mine, "prune") == DONE
    assert snapshot(mine.folder) == whole
    assert leftover.is_dir()
    assert "--yes" in capsys.readouterr().out
    assert of(mine, "prune", "--yes") == DONE
    assert not leftover.exists()
    assert {seed: mine.member(seed).states() for seed in (0, 1)} == {s: own[-1:] for s, own in before.items()}
    capsys.readouterr()
    assert of(mine, "prune", "--yes") == DONE
    assert "nothing to remove" in capsys.readouterr().out
    assert of(mine, "verify") == DONE


def test_the_only_state_is_never_removed(mine: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert of(mine, "prune", "--keep", "0", "--yes") == WRONG
    assert "at least 1" in capsys.readouterr().err


def test_an_export_is_a_cohort_with_some_of_the_checkpoints(
    mine: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.member(1).set_status(Status("preempted", 10))
    assert of(mine, "export", str(tmp_path), "--steps", "0,10") == DONE
    assert "left out, not completed: seeds 1" in capsys.readouterr().out
    copy = Cohort.open(tmp_path / "small")
    (member,) = copy.members()
    assert member.steps() == sorted({0, 10, 30, mine.member(0).best_step()})
    assert member.read_step(10).digest == mine.member(0).read_step(10).digest
    assert of(copy, "verify") == DONE
    before = snapshot(tmp_path)
    assert of(mine, "export", str(tmp_path), "--steps", "0,10") == DONE
    assert snapshot(tmp_path) == before


def test_an_export_onto_itself_and_of_nobody_is_refused(
    mine: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert of(mine, "export", str(mine.folder.parent)) == WRONG
    assert "another folder" in capsys.readouterr().err
    for seed in (0, 1):
        mine.member(seed).set_status(Status("failed", 10))
    assert of(mine, "export", str(tmp_path)) == WRONG
    assert "no member is completed" in capsys.readouterr().err


WRONG_REQUESTS = {
    "no cohort": ["status"],
    "another cohort": ["status", "smal"],
    "another option": ["prune", "small", "--all"],
    "no folder": ["export", "small"],
    "steps in letters": ["export", "small", "x", "--steps", "many"],
    "no place of cohorts": ["list", "nowhere"],
}


@pytest.mark.parametrize("what", WRONG_REQUESTS)
def test_a_wrong_request_is_one_line(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WRONG_REQUESTS[what]) == WRONG
    assert len(capsys.readouterr().err.splitlines()) == 1
