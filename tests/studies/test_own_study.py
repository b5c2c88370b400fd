"""A study that is added while the program runs: one folder, and it is in the table, the page, --help and the docs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from polymorph import studies
from polymorph.cli.config import analyze_schema
from polymorph.cli.reference import help_text
from polymorph.evidence.evidence import Evidence, planted_evidence
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.report.page import render_page
from polymorph.studies import reference
from polymorph.studies.registry import STUDIES, add_studies
from polymorph.studies.tables import study_tables

NAME = "tokens_seen"
FILES = {
    "__init__.py": """
from polymorph.studies.study import Study
from polymorph.studies.tokens_seen.options import Options

STUDY = Study(
    package=__name__,
    question="How many tokens does a member say?",
    place=65,
    metrics={"tokens": "of a pair: how many tokens its maps are fitted on"},
    options=Options,
    limits=("It can show very little.",),
)
""",
    "options.py": '''
from dataclasses import dataclass

@dataclass
class Options:
    """How tokens are counted."""

    dozens: bool = False
    """Whether tokens are counted in dozens."""

    def request(self):
        return 12 if self.dozens else 1

    def identity(self):
        return {"dozens": self.dozens}

    def check(self, evidence):
        pass
''',
    "rows.py": """
import torch
from polymorph.studies.tokens_seen import STUDY

def study_rows(evidence):
    for site in evidence.sites:
        tokens = evidence.at(site).fit.total().n / STUDY.request(evidence)
        values = tokens.expand(len(evidence.pairs)).double()
        yield from evidence.pair_rows(STUDY.name, site, "fit", "tokens", values)
""",
    "answer.py": """
from polymorph.plotting.answer import Answer

def answer(rows, tables):
    return Answer(f"They say {rows['value'].sum():g} tokens.", (), ())
""",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the study's folder in it, and nothing else."""
    (tmp_path / NAME).mkdir()
    for name, text in FILES.items():
        (tmp_path / NAME / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same, taken in for one test."""
    before = dict(STUDIES)
    monkeypatch.setattr(studies, "__path__", [*studies.__path__])
    add_studies(folder)
    yield
    STUDIES.clear()
    STUDIES.update(before)
    for name in [name for name in sys.modules if name.startswith(f"polymorph.studies.{NAME}")]:
        del sys.modules[name]
    delattr(studies, NAME)


@pytest.fixture
def evidence() -> Evidence:
    return planted_evidence(Planted("rotated", PlantedConfig(d=8, members=2, documents=32, tokens=8)))


@pytest.mark.usefixtures("added")
def test_it_stands_where_it_says_among_the_others():
    assert list(STUDIES).index(NAME) == list(STUDIES).index("ladder") + 1
    assert STUDIES[NAME].is_of("given")
    assert STUDIES[NAME].identity() == {"study": NAME, "version": 1, "options": {"dozens": False}}


@pytest.mark.usefixtures("added")
def test_it_has_a_table_that_follows_what_is_asked(evidence: Evidence):
    tables, refused = study_tables(evidence, [NAME])
    assert refused == []
    (tokens,) = tables[NAME]["value"].unique()
    asked = replace(evidence, options={NAME: STUDIES[NAME].options(dozens=True).request()})
    assert study_tables(asked, [NAME])[0][NAME]["value"].to_list() == [tokens / 12]


@pytest.mark.usefixtures("added")
def test_it_has_its_section_of_the_page_without_a_figure(planted, evidence: Evidence):
    tables, _ = study_tables(evidence, [NAME])
    page = render_page(replace(planted, tables=tables), {})
    section = page.partition(f'<section id="{NAME}"')[2].partition("</section>")[0]
    for wanted in ("How many tokens does a member say?", "They say", "It can show very little.", "tokens"):
        assert wanted in section


@pytest.mark.usefixtures("added")
def test_its_options_are_keys_of_the_command_and_it_is_in_the_documents():
    assert analyze_schema()(cohort="x", dozens=True).options[NAME].request() == 12
    assert "dozens=false" in help_text("analyze")
    assert "Whether tokens are counted in dozens." in help_text("analyze")
    assert f"## {NAME}" in reference.document()
    assert "| `tokens` | of a pair: how many tokens its maps are fitted on |" in reference.document()


def test_without_it_nothing_is_left_of_it():
    assert NAME not in STUDIES
    assert "dozens" not in help_text("analyze")
    assert NAME not in reference.document()


def listed(*folders: Path) -> subprocess.CompletedProcess[str]:
    """The studies that a new process knows."""
    code = "from polymorph.studies.registry import STUDIES; print(*STUDIES)"
    environment = {**os.environ, "POLYMORPH_STUDIES": os.pathsep.join(map(str, folders))}
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_a_variable_of_the_environment_names_folders_of_studies(folder: Path):
    assert set(listed(folder).stdout.split()) == {*STUDIES, NAME}
    assert set(listed().stdout.split()) == set(STUDIES)


def test_two_studies_of_one_name_are_refused(folder: Path, tmp_path: Path):
    again = tmp_path / "again"
    (again / NAME).mkdir(parents=True)
    (again / NAME / "__init__.py").write_text("", encoding="utf-8")
    refused = listed(folder, again)
    assert refused.returncode != 0
    assert f"there are two studies with the name {NAME}" in refused.stderr
