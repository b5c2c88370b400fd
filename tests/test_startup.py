"""What is answered without torch, what the core of the package can do alone, and what is said of the rest."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import polymorph
from polymorph.cli import extras
from polymorph.cli.ending import DONE, WRONG
from polymorph.cli.main import main

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "lightning", "transformer_lens", "transformers", "sae_lens", "wandb", "matplotlib", "scipy")
BLOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def called(code: str, absent: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A process in which some modules are not there."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(absent=set(absent)) + code],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def commanded(*arguments: str, absent: tuple[str, ...] = HEAVY) -> subprocess.CompletedProcess[str]:
    return called(f"from polymorph.cli.main import main\nsys.exit(main({list(arguments)!r}))", absent)


# Without torch.


def test_the_package_is_imported_without_torch() -> None:
    ended = called(f"import polymorph\nassert not set({HEAVY!r}) & set(sys.modules)", HEAVY)
    assert ended.returncode == 0, ended.stderr


def test_every_name_of_the_package_is_there_and_no_other() -> None:
    for name in polymorph.__all__:
        assert getattr(polymorph, name) is not None
        assert name in dir(polymorph)
    homes = [name for names in polymorph._HOMES.values() for name in names]
    assert sorted(homes) == sorted(polymorph.__all__)
    with pytest.raises(AttributeError, match="no attribute 'compair'"):
        polymorph.compair  # noqa: B018


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["analyze", "-h"], ["list", "."]])
def test_help_and_lists_need_no_torch(arguments: list[str]) -> None:
    ended = commanded(*arguments)
    assert ended.returncode == DONE, ended.stderr


WRONG_KEYS = {
    "train": (["train", "trainer.max_step=3"], "trainer.max_step: there is no such key"),
    "a sweep": (["train", "-m", "seed=0,1", "trainer.max_step=3"], "did you mean 'trainer.max_steps'"),
    "analyze": (["analyze", "cohort=none", "stdy=ladder"], "stdy: there is no such key"),
    "a group": (["train", "experiment=qick"], "experiment=qick"),
}


@pytest.mark.parametrize("what", WRONG_KEYS)
def test_a_wrong_key_is_answered_without_torch(what: str) -> None:
    arguments, said = WRONG_KEYS[what]
    ended = commanded(*arguments)
    assert ended.returncode == WRONG
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_another_command_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == WRONG
    assert "train, analyze, list" in capsys.readouterr().err


# The core alone.


BEYOND = tuple(module for modules in extras.EXTRAS.values() for module in modules)
COMPARED = """
import torch
from polymorph import compare
x = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
found = compare([x, x @ turn], document=torch.arange(2000) // 20, studies=["ladder"])
print(found.verdict in ("rotation", "orthogonal"), *found.tables)
"""


def test_the_core_alone_compares() -> None:
    ended = called(COMPARED, BEYOND)
    assert ended.stdout.strip() == "True ladder", ended.stderr


@pytest.mark.parametrize(
    ("absent", "extra"),
    [(BEYOND, "train"), (("lightning",), "train"), (("transformer_lens",), "train"), (("sae_lens",), "saes")],
)
def test_what_is_missing_is_said_with_the_line_that_installs_it(absent: tuple[str, ...], extra: str) -> None:
    ended = commanded("train", "seed=0", "logger=csv", absent=absent)
    assert ended.returncode == WRONG
    assert f'pip install "polymorph[{extra}]"' in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_module_of_no_extra_is_an_error_like_any_other() -> None:
    assert extras.missing_line(ModuleNotFoundError(name="polymorph.none")) is None
    assert extras.missing_line(ModuleNotFoundError(name="wandb.apis")) is not None


def test_without_wandb_numbers_go_to_csv_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extras.with_logger(["seed=0"]) == ["seed=0"]
    monkeypatch.setattr(extras, "is_installed", lambda module: module != "wandb")
    assert extras.with_logger(["seed=0"]) == ["seed=0", "logger=csv"]
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert extras.with_logger(["logger=none"]) == ["logger=none"]
    assert capsys.readouterr().out == ""


def requirements(project: dict, extra: str) -> list[str]:
    """What an extra installs beyond the core, by way of other extras too."""
    found: list[str] = []
    for one in project["optional-dependencies"][extra]:
        own = re.fullmatch(r"polymorph\[(.*)\]", one)
        found += (
            [more for name in own[1].split(",") for more in requirements(project, name)] if own else [one]
        )
    return found


def test_the_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    distributions = {"hydra": "hydra-core", "PIL": "pillow"}
    for extra, modules in extras.EXTRAS.items():
        for name in (distributions.get(module, module.replace("_", "-")) for module in modules):
            for listed, expected in ((requirements(project, extra), True), (project["dependencies"], False)):
                assert any(one.startswith(f"{name}>=") for one in listed) is expected, (extra, name)
