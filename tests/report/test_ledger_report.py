"""The ledger on the tables of real studies, and as it is read."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from polymorph.papers.mccann2026.entries import Selector, load_ledger
from polymorph.papers.mccann2026.ledger import NOT_RUN, VERDICTS, Judged, judge_all, write_ledger
from polymorph.papers.mccann2026.ledger_page import render_ledger
from polymorph.papers.mccann2026.ledger_rows import (
    figure,
    in_rows,
    of_ours,
    of_paper,
    of_sound,
    summary,
    to_be_run,
)
from polymorph.papers.mccann2026.ledger_text import ledger_lines
from polymorph.papers.mccann2026.measurement import Chosen, chosen_rows
from polymorph.plotting.table_rows import at_last_steps
from polymorph.report.data import ReportData

ELSEWHERE = {
    "steering.pythia": "its prompts are texts",
    "steering.dyck.sticky": "the planted models have too few positions of this kind",
    "ablation.r_ap": "two blocks have no correlation",
    "ablation.r_ig": "two blocks have no correlation",
    "bar_c.within.ap": "one order of heads alone has no p-value",
}
"""Claims of which no row stands in the planted tables, and why; each was found in the tables of a trained cohort."""
HOSTILE = "<script>alert(1)</script>\x1b[31m"


def selectors() -> Iterator[tuple[str, Selector]]:
    for entry in load_ledger().entries:
        control = None if entry.empty is None else entry.empty.control
        for found in (entry.producer, entry.sound, control):
            if isinstance(found, Selector):
                for part in (found, found.less, found.over):
                    if part is not None:
                        yield entry.id, part


@pytest.fixture(scope="module")
def judged(studied: ReportData) -> list[Judged]:
    facts = {"task.name": "dyck3", "cohort.seeds": [0, 1, 2]}
    tables = dict(studied.tables) | {"ladder": at_last_steps(studied.ladder)}
    return judge_all(load_ledger(), tables, facts)


def test_every_selector_finds_rows_in_the_tables_of_the_studies(studied: ReportData) -> None:
    """Sites of Pythia are named in some, and are here others."""
    missing = {
        name
        for name, selector in selectors()
        if not isinstance(chosen_rows(_anywhere(selector), studied.tables), Chosen)
    }
    assert missing <= ELSEWHERE.keys()


def _anywhere(selector: Selector) -> Selector:
    own = replace(selector, less=None, over=None)
    return own if isinstance(own.sites, str) else replace(own, sites="all")


def test_a_planted_cohort_gets_a_verdict_for_every_claim(judged: list[Judged]) -> None:
    assert [one.entry.id for one in judged] == [entry.id for entry in load_ledger().entries]
    assert {one.verdict for one in judged} == set(VERDICTS)
    assert all(one.reason for one in judged)
    assert all(one.make or "no producer" in one.reason for one in judged if one.verdict == NOT_RUN)
    assert all(one.elsewhere for one in judged if one.entry.cohort == "dyck_a" and one.ours and one.count > 1)


def test_what_is_written_is_json_with_every_entry(judged: list[Judged]) -> None:
    written = json.loads(write_ledger(judged, "toy"))
    assert written["cohort"] == "toy"
    assert len(written["entries"]) == len(judged) == sum(written["counts"].values())
    assert all(entry["producer"] for entry in written["entries"])


def test_the_page_is_whole_and_everything_in_it_escaped(judged: list[Judged]) -> None:
    hostile = [replace(judged[0], reason=HOSTILE, elsewhere=(HOSTILE,)), *judged[1:]]
    page = render_ledger(hostile, HOSTILE, "a paper", {"command": HOSTILE})
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("<tr id=") == len(judged)
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    body = page.replace("<!doctype html>", "").replace("&middot;", "·")
    ElementTree.fromstring(re.sub(r"<meta[^>]*>", "", body))  # every tag that is opened is closed


def test_the_terminal_has_every_claim_in_its_width_and_no_control_characters(judged: list[Judged]) -> None:
    lines = list(ledger_lines([replace(judged[0], reason=HOSTILE, control=(1.0,)), *judged[1:]], 120))
    assert "\x1b" not in "".join(lines)
    tables = [
        line for line in lines if "python" not in line and line not in {row for row, _ in in_rows(judged)}
    ]
    assert max(map(len, tables)) <= 120
    text = re.sub(r"\s+", " ", " ".join(lines))
    assert summary(judged) in text
    assert all(command in "\n".join(lines) for command in to_be_run(judged))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (-0.25, "−0.25"), (1.74e-4, "0.000174"), (3e-7, "3e−7"), (28672.0, "28672")],
)
def test_numbers_are_read_as_in_the_paper(value: float, text: str) -> None:
    assert figure(value) == text


def test_numbers_are_told_with_their_ends(judged: list[Judged]) -> None:
    found = {one.entry.id: one for one in judged}
    mapped = found["sae_ev.dyck_a.mapped"]
    assert of_paper(mapped.entry.paper) == "0.976 … 0.99"
    assert of_ours(mapped) == f"{figure(min(mapped.ours))} … {figure(max(mapped.ours))}"
    assert of_sound(None) == "–"
    assert of_paper(found["sae_ev.dyck_a.naive"].entry.paper) == "< 0"
