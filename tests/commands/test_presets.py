"""Every YAML in conf/ composes into a typed request, and every experiment runs."""

from itertools import product
from pathlib import Path

import pytest
from cohorts import cohort_in, status_of
from ended import Run
from hub_folders import write_prose

from polymorph.cli import command
from polymorph.cli.config import AnalyzeConfig, TrainConfig
from polymorph.cli.import_stage import asked_models
from polymorph.errors import RequestError
from polymorph.presets import CONF


def names(*group: str) -> list[str]:
    return sorted(path.stem for path in Path(CONF, *group).glob("*.yaml"))


EXPERIMENTS = names("experiment")
TRAINED = ("independent", "shared_io")
IMPORTED = [name for name in names("cohort") if name not in TRAINED]


def test_the_groups_are_found() -> None:
    assert {"quick", "paper"} <= set(EXPERIMENTS)
    assert set(TRAINED) <= set(names("cohort"))
    assert {"pythia70m_seeds", "pythia70m_trajectory", "hf"} <= set(IMPORTED)


@pytest.mark.parametrize(("experiment", "cohort"), product(EXPERIMENTS, TRAINED))
def test_every_experiment_composes_with_every_cohort(experiment: str, cohort: str) -> None:
    (config,) = command.requests("train", TrainConfig, [f"experiment={experiment}", f"cohort={cohort}"])
    assert config.preset == experiment
    assert config.cohort.kind == cohort
    assert config.cohort.name == f"{config.task.name}-{experiment}-{cohort}"
    assert config.seeds == [0]


@pytest.mark.parametrize("cohort", IMPORTED)
def test_every_pretrained_cohort_composes(cohort: str) -> None:
    (config,) = command.requests("train", TrainConfig, [f"cohort={cohort}", "stage=import"])
    assert config.cohort.kind == "pretrained"
    assert config.task.dataset == "monology/pile-uncopyrighted"
    ends = [(one.seed, one.step) for one in asked_models(config)] if cohort != "hf" else []
    expected = {
        "pythia70m_seeds": [(seed, 143000) for seed in range(1, 10)],
        "pythia70m_trajectory": [(seed, step) for seed in (1, 2) for step in PUBLISHED],
    }
    assert ends == expected.get(cohort, [])


PUBLISHED = [0, *(2**k for k in range(10)), *range(1000, 144000, 1000)]
"""The steps at which Pythia was published."""
WITH = {"text_files": ["task.files=[a.txt]"], "pile": ["task.tokenizer=owner/name"]}


@pytest.mark.parametrize("name", names("logger"))
def test_every_logger_composes(name: str) -> None:
    assert command.requests("train", TrainConfig, [f"logger={name}"])


@pytest.mark.parametrize("name", names("task"))
def test_every_task_composes(name: str) -> None:
    stage = "stage=model" if name == "dyck3" else "stage=text"
    (config,) = command.requests("train", TrainConfig, [f"task={name}", stage, *WITH.get(name, [])])
    assert config.task.name in ("dyck3", "text")


@pytest.mark.parametrize(("name", "task"), [("dyck_transformer", "dyck3"), ("gpt_neox", "text")])
def test_every_model_composes_with_its_task_and_no_other(name: str, task: str) -> None:
    assert name in names("model")
    assert command.requests("train", TrainConfig, [f"model={name}", f"task={task}"])
    other = {"dyck3": "text", "text": "dyck3"}[task]
    with pytest.raises(RequestError, match=f"model={name} learns task={task}|Interpolation key"):
        command.requests("train", TrainConfig, [f"model={name}", f"task={other}"])


@pytest.mark.parametrize("logger", names("analyze", "logger"))
def test_every_choice_of_an_analysis_composes(logger: str) -> None:
    (config,) = command.requests("analyze", AnalyzeConfig, ["cohort=any", f"logger={logger}"])
    assert config.logger.kind == logger


def test_quick_is_the_default() -> None:
    assert command.requests("train", TrainConfig, []) == command.requests(
        "train", TrainConfig, ["experiment=quick"]
    )


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(run: Run, root: Path, experiment: str) -> None:
    brief = "trainer.max_steps=2 trainer.batch_size=4 trainer.eval_sequences=8 probe.fit=8 probe.eval=8"
    if experiment.startswith("tinylm"):
        texts = write_prose(root / "prose.jsonl", 400)
        brief += f" task.source=files task.files=[{texts}] task.vocab_size=300 task.context=32"
    here = f"trainer.accelerator=cpu trainer.threads=1 logger=none cohort.root={root} cohort.name=brief"
    ended = run("train", f"experiment={experiment}", "seed=[0,1]", *brief.split(), *here.split())
    assert ended.status == command.DONE, ended
    cohort = cohort_in(root, "brief")
    assert [status_of(cohort, seed).state for seed in (0, 1)] == ["completed", "completed"]
    assert cohort.member(0).steps() == [0, 1, 2]
