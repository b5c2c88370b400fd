"""The script for a machine with a GPU: it says that there is none, and rehearses every piece on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from polymorph.store import Cohort

ROOT = Path(__file__).resolve().parent.parent.parent
PIECES = ("step", "saes", "moments", "analysis", "cohort")


def called(out: Path, *arguments: str, **others: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "OUT": str(out), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **others}
    script = ROOT / "benchmarks" / "gpu.sh"
    return subprocess.run([script, *arguments], env=own, text=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    ended = called(tmp_path / "out")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "no GPU" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_rehearsal_makes_every_piece_once(tmp_path: Path) -> None:
    first = called(tmp_path, "--cpu-rehearsal")
    assert first.returncode == 0, first.stdout + first.stderr
    assert [path.name for path in tmp_path.iterdir()] == [
        "rehearsal"
    ]  # nothing that a real run would take for its own
    out = tmp_path / "rehearsal"
    whole = (out / "gpu.md").read_text()
    assert "a rehearsal" in whole
    assert whole.count("\n## ") == len(PIECES)
    exported = Cohort.open(out / "paper/members/dyck3-paper-independent")
    assert [member.seed for member in exported.members()] == [100, 101]
    second = called(tmp_path, "--cpu-rehearsal")
    assert second.returncode == 0
    assert second.stdout.count("done before") == len(PIECES) - 1  # the cohort finds its members finished
    assert (out / "gpu.md").read_text() == whole


@pytest.mark.slow
def test_the_time_limit_keeps_the_state_and_the_next_start_goes_on(tmp_path: Path) -> None:
    (tmp_path / "rehearsal").mkdir()
    for name in PIECES[:-1]:
        (tmp_path / f"rehearsal/{name}.md").write_text("done")
    cut = called(tmp_path, "--cpu-rehearsal", LIMIT="1")
    assert cut.returncode == 143, cut.stdout + cut.stderr
    assert called(tmp_path, "--cpu-rehearsal").returncode == 0


@pytest.mark.slow
def test_a_piece_that_fails_is_said_and_made_again(tmp_path: Path) -> None:
    (tmp_path / "rehearsal").mkdir()
    for name in PIECES[1:-1]:
        (tmp_path / f"rehearsal/{name}.md").write_text("done")
    ended = called(tmp_path, "--cpu-rehearsal", LIMIT="1")  # no benchmark is ready in a second
    assert (ended.returncode, "step failed with status 124" in ended.stdout) == (1, True)
    assert not (tmp_path / "rehearsal/step.md").exists()


@pytest.mark.slow
def test_an_analysis_that_fails_is_no_piece_that_is_done(tmp_path: Path) -> None:
    """It is a function of the script, which a shell of its own runs."""
    (tmp_path / "rehearsal/small").mkdir(parents=True)
    (tmp_path / "rehearsal/small/quick").write_text("no folder")
    for name in ("step", "saes", "moments"):
        (tmp_path / f"rehearsal/{name}.md").write_text("done")
    ended = called(tmp_path, "--cpu-rehearsal")
    assert (ended.returncode, "analysis failed with status" in ended.stdout) == (1, True)
    assert not (tmp_path / "rehearsal/analysis.md").exists()
