"""The script that trains the paper's cohorts: killed, started again, paused, and the same bytes in the end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from cohorts import SMALL, memory_folder, published

from polymorph.store import Cohort

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "paper_cohorts.sh"
SHARED = "dyck3-paper-shared_io"
OWN = ("cohort.name", "logger", "trainer.threads", "trainer.accelerator", "trainer.progress")
TINY = " ".join(part for part in SMALL if part.partition("=")[0] not in OWN)
LONG = f"{TINY} trainer.max_steps=200000"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def home() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder
        called(folder, "stop")


def environment(home: Path, queue: str, extra: str) -> dict[str, str]:
    own = {
        "PAPER_HOME": str(home / "home"),
        "MEMBERS_TO": str(home / "page"),
        "POLYMORPH_CLONE": str(ROOT),
        "PYTHON": sys.executable,
        "JOBS": "2",
        "PRECISION": "float32",
        "COMPILE": "false",
        "QUEUE": queue,
        "EXTRA": extra,
        "NICE": "0",
    }
    return {**os.environ, **own}


def started(home: Path, queue: str, extra: str = TINY) -> subprocess.Popen[str]:
    with (home / "output").open("a") as output:
        return subprocess.Popen(
            [SCRIPT], env=environment(home, queue, extra), text=True, stdout=output, stderr=subprocess.STDOUT
        )


def called(home: Path, command: str, queue: str = "one 0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, command], env=environment(home, queue, TINY), text=True, capture_output=True, timeout=120
    )


def wait_for(what: Callable[[], object], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def states(home: Path, cohort: str, seed: int) -> list[int]:
    folder = home / "home/cohorts" / cohort / f"members/seed-{seed:04d}/state"
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def training(home: Path, name: str) -> int:
    return int((home / f"home/locks/{name}.lock").read_text())


def test_it_is_killed_twice_and_goes_on_to_the_same_bytes(home: Path) -> None:
    queue, extra = "one 0\none 1", f"{TINY} trainer.max_steps=900 checkpoints.every=100"
    (home / "whole").mkdir()
    assert started(home / "whole", queue, extra).wait(200) == 0
    script = started(home, queue, extra)
    wait_for(lambda: states(home, "one", 0))
    script.send_signal(signal.SIGTERM)
    assert script.wait(60) == 143
    script = started(home, queue, extra)
    wait_for(lambda: max(states(home, "one", 1), default=0) >= 100)
    script.kill()  # its trainings go on, and the next start waits for them
    script.wait()
    assert started(home, queue, extra).wait(200) == 0
    one, other = (Cohort.open(place / "home/cohorts/one") for place in (home, home / "whole"))
    assert published(one) == published(other)
    assert [member.steps()[-1] for member in Cohort.open(home / "page/members/one").members()] == [900, 900]
    assert "| one | 0 | 900 |" in (home / "page/README.md").read_text()
    assert started(home, queue, extra).wait(60) == 0  # nothing is left to do
    assert (home / "output").read_text().count("start: one 0") in (2, 3)


def test_a_second_start_is_refused_and_a_pause_stops_every_training(home: Path) -> None:
    script = started(home, "one 0", LONG)
    wait_for(lambda: states(home, "one", 0))
    second = called(home, "start")
    assert (second.returncode, "already running" in second.stdout) == (1, True)
    trains = training(home, "one-0")
    assert called(home, "pause").returncode == 0
    wait_for(lambda: (process_state(script.pid), process_state(trains)) == ("T", "T"), 5)
    assert f"process {trains}, paused" in called(home, "status").stdout
    called(home, "resume")
    wait_for(lambda: process_state(trains) != "T", 5)
    called(home, "pause")
    assert called(home, "stop").returncode == 0  # a paused one too
    assert script.wait(60) == 143
    assert "preempted: step" in called(home, "status").stdout


def test_a_donor_comes_first_and_a_member_that_fails_is_said_and_does_not_stop_the_others(home: Path) -> None:
    queue = f"{SHARED} 1\none 7\n{SHARED} 0"
    broken = home / "home/cohorts/one/members"
    broken.mkdir(parents=True)
    (broken / "seed-0007").write_text("no folder")
    (home / "home/record").write_text(
        f"commit={head()}\nprecision=float32\ncompile=false\n", encoding="utf-8"
    )
    assert started(home, queue).wait(200) == 1
    said = (home / "output").read_text()
    assert said.index(f"start: {SHARED} 0") < said.index(f"start: {SHARED} 1")
    assert f"{SHARED} 1 (attempt" not in said  # it was not started before its donor had ended
    assert "one 7 (attempt 3 of 3); its log ends:" in said
    assert f"finished: {SHARED} 1" in said


def test_what_was_exported_is_taken_back_where_the_folder_is_lost_and_its_donor_serves(home: Path) -> None:
    assert started(home, f"{SHARED} 0").wait(200) == 0
    shutil.rmtree(home / "home")
    assert started(home, f"{SHARED} 0\n{SHARED} 1").wait(200) == 0
    said = (home / "output").read_text()
    assert f"taken back: {SHARED} seed-0000" in said
    assert said.count(f"start: {SHARED} 0") == 1
    assert f"finished: {SHARED} 1" in said
    cohort = Cohort.open(home / "page/members" / SHARED)
    donor, other = (cohort.member(seed).read_step(cohort.member(seed).steps()[-1]).weights for seed in (0, 1))
    assert torch.equal(donor["W_E"], other["W_E"])


def test_cohorts_of_another_commit_are_left_alone(home: Path) -> None:
    (home / "home").mkdir()
    (home / "home/record").write_text(
        f"commit={'0' * 40}\nprecision=float32\ncompile=false\n", encoding="utf-8"
    )
    assert started(home, "one 0").wait(60) == 1
    assert "left alone" in (home / "output").read_text()
    assert not list((home / "home/cohorts").iterdir())


def head() -> str:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    return asked.stdout.strip()
