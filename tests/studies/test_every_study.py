"""The laws of every study: what it says of itself is true of its rows, its answer, its figures and its page."""

import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from polymorph.alignment.axes import MASSIVE
from polymorph.alignment.multiplicity import SIGNIFICANCE
from polymorph.cli.config import AnalyzeConfig, analyze_schema
from polymorph.cli.reference import sentences
from polymorph.evidence.rows import COLUMNS, MEASURED, Row, table
from polymorph.plotting.plate import Missing
from polymorph.studies import reference
from polymorph.studies.registry import STUDIES, schema_of
from polymorph.studies.sample_efficiency.rows import WITHIN
from polymorph.studies.study import Study
from polymorph.verdicts.bounds import GAP

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "matplotlib", "lightning", "transformer_lens")
EVERY = pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
WITH_OPTIONS = [study for study in STUDIES.values() if study.options is not None]


def figures(study: Study) -> Iterator[ModuleType]:
    for name in (*study.figures, *study.figures_of_training):
        yield import_module(f"{study.package}.{name}")


def undeclared(study: Study, rows: pl.DataFrame) -> set[str]:
    """Metrics of its rows that it does not define."""
    return set(rows["metric"]) - study.metrics.keys()


@EVERY
def test_it_asks_a_question_and_says_what_its_numbers_bear(study: Study):
    assert study.question.endswith("?")
    assert 2 <= len(study.limits) <= 4
    assert all(limit.endswith(".") for limit in study.limits)
    assert (study.package, study.name) == (f"polymorph.studies.{study.name}", study.package.split(".")[-1])


def test_no_two_have_one_place_or_one_figure():
    assert list(STUDIES.values()) == sorted(STUDIES.values(), key=lambda study: study.place)
    places = [study.place for study in STUDIES.values()]
    names = [module.NAME for study in STUDIES.values() for module in figures(study)]
    assert len(set(places)) == len(places)
    assert len(set(names)) == len(names)


@EVERY
def test_its_rows_hold_what_it_declares(studied, study: Study):
    rows = studied.tables[study.name]
    assert dict(rows.schema) == dict(schema_of(study.name))
    assert not rows.is_empty()
    assert set(rows["study"]) == {study.name}
    assert undeclared(study, rows) == set()
    assert all(study.metrics.values())


@EVERY
def test_a_metric_and_a_column_that_it_does_not_declare_are_seen(study: Study):
    row = Row(cohort="made", study=study.name, role="estimate", metric="astrology", value=1.0)
    assert undeclared(study, table([row], study.columns)) == {"astrology"}
    with pytest.raises(ValueError, match="undeclared extra columns: sign"):
        table([replace(row, extra={"sign": "Leo"})], study.columns)


@EVERY
def test_columns_of_its_own_are_keys_and_new(study: Study):
    assert not study.columns.keys() & (COLUMNS.keys() | set(MEASURED))


@EVERY
def test_no_rows_are_an_answer_that_says_what_is_missing(study: Study):
    assert study.answer({}) is None
    answer = study.answer({study.name: table([], study.columns)})
    assert answer is not None
    assert re.search(r"\b(No|not|nothing)\b", answer.text)
    assert answer.lines == ()


@EVERY
def test_every_figure_takes_the_same_and_no_rows_are_a_reason(study: Study):
    empty, ladder = table([], study.columns), table([], STUDIES["ladder"].columns)
    plates = study.plates(empty, ladder, trained=True)
    assert len(plates) == len(study.figures) + len(study.figures_of_training) > 0
    for module, plate in zip(figures(study), plates, strict=True):
        assert list(inspect.signature(module.plate).parameters) == ["rows", "ladder"]
        assert isinstance(plate, Missing)
        assert plate.name == module.NAME
        assert plate.reason.endswith(".")


@EVERY
def test_its_part_of_a_key_follows_its_version_and_its_options(study: Study):
    own = study.identity()
    assert json.loads(json.dumps(own)) == own
    assert own["study"] == study.name
    assert replace(study, version=study.version + 1).identity() != own
    assert study.identity(None if study.options is None else study.options()) == own


def test_other_options_are_another_key():
    asked = {"steering": {"contrasts": [{"name": "n", "positive": {"depth": 3}, "negative": {"depth": 2}}]}}
    asked["components"] = {"components": ["L0H1"]}
    assert asked.keys() == {study.name for study in WITH_OPTIONS}
    for study in WITH_OPTIONS:
        assert study.options is not None
        assert study.identity(study.options(**asked[study.name])) != study.identity()


@pytest.mark.parametrize("study", WITH_OPTIONS, ids=lambda study: study.name)
def test_every_key_of_its_options_has_a_sentence_and_is_one_of_the_command(study: Study):
    assert study.options is not None
    keys = {part.name: part.type for part in fields(study.options)}
    assert keys.items() <= {part.name: part.type for part in fields(analyze_schema())}.items()
    assert not keys.keys() & {part.name for part in fields(AnalyzeConfig)}
    said = sentences(study.options)
    assert all(said[name] or inspect.getdoc(kind) for name, kind in keys.items())


def test_two_studies_with_one_key_are_refused(monkeypatch):
    twin = replace(STUDIES["components"], package="polymorph.studies.twin")
    monkeypatch.setitem(STUDIES, "twin", twin)
    with pytest.raises(ValueError, match="study twin: analyze\\.py has a key components already"):
        analyze_schema()


def test_studies_are_known_without_torch_and_matplotlib():
    code = f"""
import sys
from polymorph.studies import reference
from polymorph.studies.registry import STUDIES
[study.identity() for study in STUDIES.values() if study.options is None]
[study.options() for study in STUDIES.values() if study.options is not None]
reference.document()
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_the_document_is_what_the_studies_say():
    text = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert reference.within(text) == text
    assert reference.within(text.replace("`delta_ce`", "")) == text
    with pytest.raises(ValueError, match="lacks the line"):
        reference.within(text.replace(reference.END, ""))


def test_bounds_that_limits_name_are_those_that_decide():
    """They are words in the study, which loads nothing that counts."""
    named = {
        "ladder": GAP,
        "pairing": SIGNIFICANCE,
        "massive_activations": MASSIVE,
        "sample_efficiency": WITHIN,
    }
    for name, bound in named.items():
        said = " ".join(itertools.chain(STUDIES[name].limits))
        assert f"{bound:g}" in re.findall(r"\d+(?:\.\d+)?", said)
