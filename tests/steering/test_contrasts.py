"""Contrasts are data: what is built in, what is parsed, and what is refused with words that name what there is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from polymorph.cli.command import requests
from polymorph.cli.config import AnalyzeConfig, register
from polymorph.errors import RequestError
from polymorph.models.functions import Functions
from polymorph.steering.contrasts import (
    LEAST,
    LabelContrast,
    PromptContrast,
    Target,
    contrast_of,
    paper_contrasts,
    prompt_contrasts,
    systematic_contrasts,
)
from polymorph.steering.options import SteeringOptions
from polymorph.steering.request import Steering
from polymorph.steering.vectors import fulfils
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import Dyck

CPU = torch.device("cpu")
SITES = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.1.hook_resid_mid"]


@pytest.fixture(scope="module")
def chunks():
    return list(Dyck().probe(ProbeConfig(256, 256), "fit", CPU))


@pytest.fixture(scope="module")
def members():
    """Members that are not there: what is asked of their task needs none."""
    return Functions([], SITES, Dyck(), ProbeConfig(256, 256), CPU)


def test_the_directions_of_the_paper():
    depth, invalid, closer = paper_contrasts()
    assert (depth.positive, depth.negative, depth.sign) == ({"depth": (5,)}, {"depth": (4,)}, 1)
    assert invalid.positive == {"valid": (1,), "depth": (4,)}
    assert invalid.sign == -1
    assert closer.target == Target("tok", (4, 6, 8), (3, 5, 7))


def test_at_least_fifty_directions_differ_and_are_found_in_a_quick_cohort_s_probe(chunks):
    every = systematic_contrasts()
    assert len({one.name for one in every}) == len(every)
    enough = [
        one
        for one in every
        if all(
            sum(int(fulfils(c, side).sum()) for c in chunks) >= LEAST for side in (one.positive, one.negative)
        )
    ]
    assert len(enough) >= 50
    heads = {one.target.head for one in enough}
    assert heads == {"tok", "depth", "valid"}
    assert any("position" in one.positive for one in enough)


def test_shipped_prompts_are_at_least_fifty_distinct_ones_a_class():
    shipped = prompt_contrasts()
    assert [one.name for one in shipped] == ["sentiment", "magnitude", "name"]
    seen: set[str] = set()
    for one in shipped:
        for side in (one.positive, one.negative):
            assert len(set(side)) == len(side) >= 50
            assert all(len(text.split()) >= 3 for text in side)
            assert not seen & set(side)
            seen |= set(side)
        assert not set(one.positive_words) & set(one.negative_words)


def test_a_condition_names_positions_that_fulfil_all_of_it(chunks):
    (chunk,) = chunks
    labels = {head: own[chunk.kept] for head, own in chunk.labels.items()}
    found = fulfils(chunk, {"depth": (1, 2), "valid": (0,), "position": (3, 4)})
    assert 0 < int(found.sum()) < len(found)
    expected = [
        int(d) in (1, 2) and int(v) == 0 and int(s) in (3, 4)
        for d, v, s in zip(labels["depth"], labels["valid"], chunk.seen, strict=True)
    ]
    assert found.tolist() == expected


def test_a_target_is_that_of_the_one_head_that_differs():
    made = contrast_of(
        {"name": "x", "positive": {"depth": [2, 3], "valid": 0}, "negative": {"depth": 1, "valid": 0}}
    )
    assert isinstance(made, LabelContrast)
    assert made.target == Target("depth", (2, 3), (1,))


GOOD = {"name": "x", "positive": {"depth": 2}, "negative": {"depth": 1}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "needs a name"),
        ({"positiv": {"depth": 1}}, "did you mean 'positive'"),
        ({"positive": {}}, "positive={}"),
        ({"positive": None}, "positive=None"),
        ({"positive": {"depth": []}}, "positive.depth=\\[\\]"),
        ({"positive": {"depth": "two"}}, "'two'"),
        ({"positive": {"depth": -1}}, "from 0 to"),
        ({"positive": {"depth": 10**20}}, "from 0 to"),
        ({"positive": {"depth": True}}, "True"),
        ({"positive": {"depth": 1}}, "one condition"),
        ({"sign": 2}, "sign=2"),
        ({"sign": True}, "sign=True"),
        ({"target": {"head": "position", "positive": 3, "negative": 4}}, "members say nothing of it"),
        ({"positive": {"depth": 2, "valid": 1}, "negative": {"depth": 1, "valid": 0}}, "target="),
        ({"positive": {"position": 2}, "negative": {"position": 1}}, "target="),
        ({"target": {"head": "depth"}}, "it has the keys head, positive, negative"),
        ({"target": {"head": "depth", "positive": [1, 2], "negative": [2]}}, "class 2 is on both sides"),
    ],
)
def test_what_cannot_be_right_of_any_cohort(change, words):
    with pytest.raises(RequestError, match=words):
        Steering.of([GOOD | change])


def test_names_are_different_and_contrasts_are_a_list():
    with pytest.raises(RequestError, match="two have the name 'x'"):
        Steering.of([GOOD, GOOD])
    for wrong in ({"name": "x"}, "x"):
        with pytest.raises(RequestError, match="a list of contrasts"):
            Steering.of(wrong)
    with pytest.raises(RequestError, match="'x' is not of the form"):
        Steering.of(["x"])


@pytest.mark.parametrize("doses", [[], [1.0, 1.0], [float("nan")], [float("inf")], [0.0], [-1.0], [True]])
def test_doses_are_finite_above_0_and_different(doses):
    with pytest.raises(RequestError, match=r"steering\.doses"):
        Steering.of(None, SteeringOptions(doses=doses))


def test_the_dose_that_is_tested_is_the_nearest_to_1():
    assert Steering.of(None).tested == 1.0
    assert Steering.of(None, SteeringOptions(doses=[8, 3, 0.1])).tested == 3.0


def test_a_site_is_the_paper_s_or_in_the_middle_or_asked_for():
    assert Steering().place(SITES) == "blocks.1.hook_resid_mid"
    assert Steering().place(["a", "b", "c"]) == "b"
    assert Steering(site="a").place(["a", "b", "c"]) == "a"
    with pytest.raises(
        RequestError, match=r"did you mean 'blocks\.1\.hook_resid_mid'.*blocks\.0\.hook_resid_pre"
    ):
        Steering(site="blocks.1.hook_resid_mdi").place(SITES)


TARGET = {"target": {"head": "depth", "positive": 2, "negative": 1}}
HEADS = "no head 'depht'.*did you mean 'depth'.*tok, depth, valid, position"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"positive": {"depht": 2}, **TARGET}, HEADS),
        ({"positive": {"depth": 12}}, "depth:12.*holds at 0 positions.*depth has 0 to 8"),
        ({"positive": {"depth": 8, "valid": 1}, **TARGET}, "at least 50"),
        ({"target": {"head": "valid", "positive": 7, "negative": 0}}, "valid has no class 7.*it has 0 to 1"),
        (
            {"target": {"head": "colour", "positive": 1, "negative": 0}},
            "no head 'colour': one of tok, depth, valid$",
        ),
        (
            {
                "positive": {"depth": [2, 3, 4, 5, 6, 7, 8], "position": 61},
                "negative": {"depth": 1},
                **TARGET,
            },
            "positions? of the fit split|eval documents have a position",
        ),
    ],
)
def test_what_a_task_does_not_have_is_refused_with_what_it_has(members, asked, words):
    with pytest.raises(RequestError, match=words):
        Steering.of([GOOD | asked]).check(members)


def test_what_a_task_has_is_let_pass(members):
    Steering.of([GOOD]).check(members)
    with pytest.raises(RequestError, match=r"one of blocks\.0\.hook_resid_pre"):
        Steering(site="nowhere").check(members)


def test_a_contrast_that_too_few_eval_documents_have_is_refused_before_anything_is_run(members):
    few = replace(members, probe=ProbeConfig(256, 7))
    with pytest.raises(RequestError, match=r"contrast x: [0-7] eval documents.*at least 8"):
        Steering.of([GOOD]).check(few)


# Files of prompts.


def lines(n: int = LEAST, classes: tuple[str, ...] = ("up", "down"), words: bool = True) -> list[str]:
    said = [json.dumps({"class": one, "words": [f" {one}"]}) for one in classes] if words else []
    return said + [json.dumps({"class": one, "text": f"{one} {i}"}) for one in classes for i in range(n)]


def asked_of(folder: Path, content: list[str], **more) -> dict:
    (folder / "p.jsonl").write_text("\n".join(content), encoding="utf-8")
    return {"name": "mood", "prompts": str(folder / "p.jsonl"), **more}


def test_prompts_of_a_file_or_of_two(tmp_path):
    made = contrast_of(asked_of(tmp_path, lines(), positive="down"))
    assert isinstance(made, PromptContrast)
    assert (made.positive[0], made.negative[0]) == ("down 0", "up 0")
    assert (made.positive_words, made.negative_words) == ((" down",), (" up",))
    for side in ("a", "b"):
        (tmp_path / side).write_text("\n".join(f"{side} {i}" for i in range(60)) + "\n\n")
    target = {"positive": [" x"], "negative": [" y"]}
    two = {"name": "m", "prompts": [str(tmp_path / side) for side in "ab"], "target": target}
    made = contrast_of(two)
    assert (made.positive[:2], len(made.negative), made.positive_words) == (("a 0", "a 1"), 60, (" x",))


def test_prompts_are_digested_by_what_they_say(tmp_path):
    first = Steering.of([asked_of(tmp_path, lines())]).identity()
    assert Steering.of([asked_of(tmp_path, lines())]).identity() == first
    assert Steering.of([asked_of(tmp_path, lines(LEAST + 1))]).identity() != first
    assert Steering.of(None).identity() != first


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        (lines(LEAST - 1), {}, "class up has 49 distinct prompts, and needs at least 50"),
        (lines(LEAST - 1) + [json.dumps({"class": "up", "text": "up 0"})] * 5, {}, "49 distinct"),
        (lines(classes=("up",)), {}, "two classes"),
        (lines(classes=("up", "down", "over")), {}, "two classes"),
        (lines(words=False), {}, "target.positive"),
        (lines(), {"positive": "sideways"}, "the classes are"),
        (lines(), {"positive": ["up"]}, "the classes are"),
        (lines(), {"target": "up"}, "target='up'.*the keys positive, negative"),
        (lines(), {"target": {"positve": [" x"]}}, "the keys positive, negative"),
        (lines(), {"target": {"positive": 5}}, "target.positive=5: a list of words"),
        (lines(), {"target": {"positive": "good"}}, "target.positive='good': a list of words"),
        ([*lines(), "{"], {}, "line 103 is not JSON"),
        ([*lines(), '{"text": "x"}'], {}, "has no class"),
        ([*lines(), '{"class": "up"}'], {}, "neither one"),
        ([], {}, "two classes"),
    ],
)
def test_prompts_that_cannot_be_read_as_two_classes(tmp_path, content, more, words):
    with pytest.raises(RequestError, match=words):
        contrast_of(asked_of(tmp_path, content, **more))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RequestError, match="cannot be read"):
        contrast_of({"name": "x", "prompts": str(tmp_path / "none.jsonl")})
    with pytest.raises(RequestError, match="two text files"):
        contrast_of({"name": "x", "prompts": ["one"]})


def test_a_task_without_texts_reads_no_prompts(tmp_path, members):
    asked = Steering.of([asked_of(tmp_path, lines())])
    with pytest.raises(RequestError, match="prompts are read by tasks of text"):
        asked.check(members)


def test_the_command_line_asks_for_contrasts():
    register()
    given = "contrasts=[{name:deeper,positive:{depth:3},negative:{depth:2},sign:-1}]"
    (config,) = requests(
        "analyze", AnalyzeConfig, ["cohort=x", given, "steering.doses=[1,3]", "steering.site=here"]
    )
    asked = config.options["steering"].request()
    assert asked.contrasts == (
        LabelContrast("deeper", {"depth": (3,)}, {"depth": (2,)}, Target("depth", (3,), (2,)), -1),
    )
    assert (asked.doses, asked.site) == ((1.0, 3.0), "here")
    (plain,) = requests("analyze", AnalyzeConfig, ["cohort=x"])
    assert plain.options["steering"].request() == Steering()
