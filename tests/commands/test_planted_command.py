"""`python analyze.py cohort=planted:<kind>`: what it writes and says, and what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from cohorts import snapshot
from ended import Ended, Run, check_refused

from polymorph.cli import command
from polymorph.evidence.rows import COLUMNS
from polymorph.report import bundle as bundled
from polymorph.studies.registry import STUDIES

ASKED = ("ladder", "support", "pairing", "haar")
SMALL = {
    "cohort": "planted:rotated",
    "study": f"[{','.join(ASKED)}]",
    "planted.d": "12",
    "planted.members": "2",
    "planted.documents": "96",
    "planted.tokens": "12",
    "logger": "none",
    "accelerator": "cpu",
    "threads": "1",
}
KEYS = {"id", "site", "statement", "value", "low", "high", "threshold", "verdict", "reason", "error_rate"}
Analyse = Callable[..., Ended]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes nine tenths of an analysis."""
    monkeypatch.setattr(bundled, "draw_all", lambda report: {})


@pytest.fixture
def analyse(run: Run, root: Path) -> Analyse:
    """The small request, with some of its keys set otherwise."""

    def carried_out(*changes: str) -> Ended:
        changed = dict(change.split("=", 1) for change in changes)
        return run("analyze", f"root={root}", *(f"{key}={value}" for key, value in (SMALL | changed).items()))

    return carried_out


def results(root: Path, kind: str = "rotated") -> Path:
    return root / f"planted-{kind}" / "analysis" / "default"


def claims(folder: Path) -> dict[str, dict[str, object]]:
    written = json.loads((folder / "claims.json").read_text())
    assert all(entry.keys() >= KEYS for entry in written)
    return {entry["id"]: entry for entry in written}


def test_a_planted_cohort_is_analysed(analyse: Analyse, root: Path) -> None:
    ended = analyse()
    assert ended.status == command.DONE, ended
    assert ended.err == ""
    folder = results(root)
    for name in ASKED:
        frame = pl.read_parquet(folder / f"{name}.parquet")
        assert frame.columns == [*COLUMNS, *STUDIES[name].columns]
        assert dict(list(frame.schema.items())[: len(COLUMNS)]) == COLUMNS
        assert set(frame["study"]) == {name}
        assert set(frame["cohort"]) == {"planted-rotated"}
        assert set(frame["site"]) == {"planted"}
        assert frame["value"].is_finite().all()
    assert not (folder / "cycles.parquet").exists()
    said = claims(folder)
    assert list(said) == ["verdict:planted", "pairing:planted", "isometry:planted", "haar:planted"]
    assert said["verdict:planted"]["verdict"] == "rotation"
    assert said["verdict:planted"]["statement"] in ended.out
    page = (folder / "report.html").read_text()
    assert "planted" in page
    assert "rotation" in page
    assert "1 pairs: 1 computed now" in ended.out


def test_again_there_is_nothing_new_until_something_changes(analyse: Analyse, root: Path) -> None:
    first = analyse("study=[ladder]")
    assert first.status == command.DONE, first
    before = snapshot(root)
    again = analyse("study=[ladder]")
    assert again.status == command.DONE
    assert "nothing new" in again.out
    assert snapshot(root) == before
    for change in ("planted.seed=1", "planted.noise=0.02", "pairs=chain", "study=[support]"):
        ended = analyse(*({"study=[ladder]"} - {"study=[ladder]" if "study" in change else ""}), change)
        assert ended.status == command.DONE
        assert "nothing new" not in ended.out, change


def test_the_same_request_gives_the_same_bytes(analyse: Analyse, root: Path) -> None:
    analyse("study=[ladder,support]")
    tables = {
        name: data for name, data in snapshot(root).items() if name.endswith((".parquet", "claims.json"))
    }
    analyse("study=[ladder]")  # something else in between
    analyse("study=[ladder,support]")
    after = snapshot(root)
    assert tables
    assert {name: after[name] for name in tables} == tables


@pytest.mark.parametrize(
    ("kind", "verdict", "haar"),
    [
        ("reflected", "orthogonal", None),
        ("rotated_low_rank", "undetermined", "refused"),
        ("same_basis", "rotation", "departs from Haar"),
        ("similarity", "similarity", None),
    ],
)
def test_other_kinds_have_their_verdicts(
    analyse: Analyse, root: Path, kind: str, verdict: str, haar: str | None
) -> None:
    ended = analyse(f"cohort=planted:{kind}", "planted.rank=4", "planted.axes=2", "planted.pinned=2")
    assert ended.status == command.DONE, ended
    said = claims(results(root, kind))
    assert said["verdict:planted"]["verdict"] == verdict
    assert haar is None or said["haar:planted"]["verdict"] == haar


# What is refused before anything starts.

WRONG = {
    "another kind": (
        "cohort=planted:rotatd",
        r"cohort=planted:rotatd",
        "'rotated'",
        "one of rotated, reflected",
    ),
    "no kind": ("cohort=planted:", "cohort=planted:", "one of rotated"),
    "too high a rank": (
        "cohort=planted:rotated_low_rank planted.rank=13",
        r"planted\.rank=13",
        r"planted\.d=12",
    ),
    "too many pinned": ("cohort=planted:pinned planted.pinned=99", r"planted\.pinned=99", r"planted\.d=12"),
    "no rank": ("planted.rank=0", r"planted\.rank=0", "at least 1"),
    "one dimension": ("planted.d=1", r"planted\.d=1", "from 2"),
    "a fraction of a dimension": ("planted.d=1.5", r"planted\.d", r"1\.5"),
    "noise above the signal": ("planted.noise=2", r"planted\.noise=2", "from 0 to 1"),
    "noise that is not a number": ("planted.noise=nan", r"planted\.noise"),
    "an infinite condition": ("planted.condition=inf", r"planted\.condition", "finite"),
    "no documents": ("planted.documents=0", "documents=0"),
    "one member": ("planted.members=1", r"planted\.members=1", "at least two"),
    "no members": ("planted.members=0", "members=0"),
    "a scheme that is not there": ("pairs=bogus", "pairs='bogus'", "all, anchor, chain"),
    "too little memory": ("memory_gib=0.0001", r"memory_gib=0\.0001", r"need.* \d+(\.\d+)? GiB"),
    "no memory": ("memory_gib=0", "memory_gib=0", "above 0"),
    "a study that is not there": ("study=[lader]", "study='lader'", "'ladder'"),
    "seeds of a planted cohort": ("seeds=[0,1]", r"planted\.members"),
    "steps of a planted cohort": ("step=last", r"planted\.members"),
    "a misspelt key": ("planted.rnk=3", r"planted\.rnk", r"'planted\.rank'"),
    "a seed below zero": ("planted.seed=-1", r"planted\.seed=-1"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_is_refused(analyse: Analyse, root: Path, what: str) -> None:
    changes, *expected = WRONG[what]
    check_refused(analyse(*changes.split()), "^analyze: ", *expected)
    assert not list(root.iterdir())


def test_the_size_that_is_needed_is_true_to_the_request(analyse: Analyse) -> None:
    """The message names a size, and with that much, rounded up, the request is not refused."""
    large = ("planted.d=256", "planted.members=4", "planted.documents=2", "study=[pairing]")
    ended = analyse(*large, "memory_gib=0.01")
    (needed,) = re.findall(r"need\D* (\d+(?:\.\d+)?) GiB", ended.err)
    assert float(needed) > 0.01
    assert analyse(*large, f"memory_gib={float(needed) + 0.1}").status != command.WRONG


# What the data cannot bear.


def test_of_one_document_nothing_is_said(analyse: Analyse, root: Path) -> None:
    ended = analyse("planted.documents=1")
    assert ended.status == command.FAILED
    (line,) = ended.err.strip().splitlines()
    assert "Traceback" not in line
    assert re.search("document", line)
    for name in ASKED:
        assert name in line  # each is refused, with its reason
    assert not list(root.rglob("*.parquet"))
    assert not list(root.rglob("claims.json"))


def test_of_two_documents_there_is_no_verdict_of_haar(analyse: Analyse, root: Path) -> None:
    ended = analyse("planted.documents=2", "planted.tokens=64")
    assert "Traceback" not in ended.err
    if ended.status == command.DONE:
        said = claims(results(root))
        assert said.get("haar:planted", {"verdict": "refused"})["verdict"] == "refused"


def test_fewer_tokens_than_dimensions_are_an_error(analyse: Analyse, root: Path) -> None:
    ended = analyse("planted.d=64", "planted.documents=4", "planted.tokens=8", "study=[ladder,support]")
    assert ended.status == command.FAILED
    (line,) = ended.err.strip().splitlines()
    assert re.search("too few tokens to fit a map: 32 tokens in 64 dimensions", line)
    assert not list(root.rglob("*.parquet"))


def test_a_study_that_cannot_be_borne_is_left_out_by_name(analyse: Analyse, root: Path) -> None:
    """Others may be; what is fitted is not among them."""
    ended = analyse("planted.d=64", "planted.documents=4", "planted.tokens=8", "study=[ladder,pairing]")
    told = ended.out + ended.err
    assert "Traceback" not in told
    assert "study ladder" in told
    assert "too few tokens to fit a map: 32 tokens in 64 dimensions" in told
    assert not list(root.rglob("ladder.parquet"))
    for path in root.rglob("claims.json"):
        assert not [entry for entry in json.loads(path.read_text()) if entry["id"].startswith("haar")]


def test_a_study_that_does_not_apply_is_left_out_by_name(analyse: Analyse) -> None:
    ended = analyse("study=[ladder,cycles]")
    assert ended.status == command.DONE
    assert "left out: study cycles: it needs at least three members" in ended.out
