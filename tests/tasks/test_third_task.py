"""A task that this project does not know needs a folder and a YAML of its own, and no line in any other file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from polymorph.cli.reference import CONF
from polymorph.store import Cohort, CorruptError
from polymorph.tasks.registry import TASKS, task_of

ROOT = Path(__file__).parents[2]
COUNTING = Path(__file__).parent / "counting"
TINY = (
    "task=counting model=gpt_neox model.n_layers=1 model.d_model=8 model.n_heads=2 model.d_mlp=16 model.n_ctx=12 "
    "model.rotary_pct=1.0 trainer.max_steps=4 trainer.batch_size=4 trainer.threads=1 trainer.accelerator=cpu "
    "trainer.eval_every=2 trainer.eval_sequences=4 checkpoints.every=2 checkpoints.powers_until=0 "
    "probe.fit=16 probe.eval=16 logger=none cohort.name=numbers seed=[0,1]"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the files of the task beside the others."""
    copy = tmp_path_factory.mktemp("project")
    without = shutil.ignore_patterns("__pycache__")
    for folder in {ROOT / "polymorph", ROOT / CONF.relative_to(ROOT).parts[0]}:
        shutil.copytree(folder, copy / folder.name, ignore=without)
    shutil.copytree(COUNTING, copy / "polymorph" / "tasks" / "counting", ignore=without)
    shutil.copy(COUNTING / "counting.yaml", copy / CONF.relative_to(ROOT) / "task")
    shutil.copy(ROOT / "train.py", copy)
    return copy


def run(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_help_names_the_task_with_its_options(project):
    told = run(project, "train.py", "--help")
    assert "Counting up in steps of one to four" in told
    assert "task (counting)" in told
    assert "task.vocab_size=11" in told


@pytest.mark.slow
def test_members_learn_it_and_their_cohort_opens_where_the_task_is_and_only_there(project):
    run(project, "train.py", *TINY.split())
    opening = (
        "from polymorph.store import Cohort; from polymorph.tasks.registry import task_of; "
        "cohort = Cohort.open('cohorts/numbers'); "
        "print(type(task_of(cohort)).__name__, [member.steps() for member in cohort.members()])"
    )
    assert run(project, "-c", opening).strip() == "Counting [[0, 2, 4], [0, 2, 4]]"
    assert "counting" not in TASKS
    with pytest.raises(CorruptError, match="task 'counting' is none of dyck3, text"):
        task_of(Cohort.open(project / "cohorts" / "numbers"))
