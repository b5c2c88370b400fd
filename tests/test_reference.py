"""The reference of the configuration is made from what runs, and so is --help."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from polymorph.cli import command, reference
from polymorph.cli.config import register
from polymorph.cli.reference import FOLDERS

ROOT = Path(__file__).parent.parent


def test_the_document_is_what_the_dataclasses_say():
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == reference.document()


@pytest.mark.parametrize("name", reference.CONFIGS)
def test_every_key_that_can_be_composed_is_told_with_its_meaning(name):
    told = {key.name: key.says for section in reference.all_sections(name) for key in section.keys}
    register()
    composed = OmegaConf.to_container(command._compose(name, []), resolve=False)
    keys = {key for key in command._paths(composed, "") if not key.startswith("sae.options.")}
    leaves = {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}
    assert leaves - set(told) == set()
    assert [key for key, says in told.items() if not says] == []


@pytest.mark.parametrize("name", reference.CONFIGS)
def test_every_option_of_every_group_says_what_it_is(name):
    groups = {path.parent.relative_to(FOLDERS[name]).as_posix() for path in FOLDERS[name].rglob("*.yaml")}
    others = {".", "analyze", "analyze/logger"} if name == "train" else {"."}
    assert groups - others == set(reference.GROUPS[name])
    for group in reference.GROUPS[name]:
        assert all(option.says for option in reference.options(name, group)), group


@dataclass
class Inner:
    """What is inside."""

    depth: int | None = None
    """How
    deep."""


@dataclass
class Outer(Inner):
    """Around it."""

    names: list[str] = field(default_factory=lambda: ["a", "b"])
    inner: Inner = field(default_factory=Inner)
    silent: bool = True


def test_keys_are_those_of_a_dataclass_its_bases_and_what_is_in_it():
    whole, inside = reference.sections(Outer)
    assert whole.says == "Around it."
    assert [(key.name, key.default, key.says) for key in whole.keys] == [
        ("depth", "null", "How deep."),
        ("names", "[a,b]", ""),
        ("silent", "true", ""),
    ]
    assert inside.name == "inner"
    assert [key.name for key in inside.keys] == ["inner.depth"]


@pytest.mark.parametrize("name", reference.CONFIGS)
def test_help_is_for_people(name):
    asked = subprocess.run([sys.executable, f"{name}.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert asked.returncode == 0
    assert asked.stdout == reference.help_text(name)
    assert asked.stdout.startswith(("Train the members", "Compare the members"))
    assert max(map(len, asked.stdout.splitlines())) <= 110
    for wanted in (f"python {name}.py", "Exit status", "group=option", "logger.kind=wandb"):
        assert wanted in asked.stdout
    assert not re.search(r"\?\?\?|<class", asked.stdout)
