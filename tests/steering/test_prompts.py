"""Prompts through a tokenizer: what is read of them, and the study on small language models."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from corpora import config_of, stories
from language_models import gpt_neox, lively

from polymorph.errors import RequestError
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import pairs_of
from polymorph.evidence.rows import table
from polymorph.models.activations import ModelActivations, coordinates_of
from polymorph.models.causal_lm import HookedCausalLM, residual_sites
from polymorph.models.functions import Functions
from polymorph.steering.contrasts import contrast_of, prompt_contrasts
from polymorph.steering.request import Steering
from polymorph.steering.vectors import check_prompts, prompt_vectors, target_of
from polymorph.studies.registry import STUDIES
from polymorph.studies.steering import rows as steering
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.task import IGNORED
from polymorph.tasks.text.prepare import prepare
from polymorph.tasks.text.text_task import Text

CPU = torch.device("cpu")
CONTEXT = 16


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Text:
    folder = tmp_path_factory.mktemp("text")
    return prepare(config_of(folder, stories(300), context=CONTEXT, vocab_size=600), folder, lambda _: None)


@pytest.fixture(scope="module")
def members(text) -> Functions:
    vocab = text.tokens.vocab_size
    models = [
        HookedCausalLM(lively(gpt_neox(vocab_size=vocab, num_hidden_layers=2), seed)).eval()
        for seed in (0, 1)
    ]
    sites = residual_sites(models[0], 2)
    probe, coordinates = ProbeConfig(10, 12), coordinates_of(True, 32)
    return Functions(models, sites, text, probe, CPU, coordinates)


TEXTS = ["the river", "a small stone", "the " * 40 + "end"]


def test_prompts_are_read_whole_or_from_their_end(text):
    chunk = text.prompts(TEXTS, CPU)
    (tokens,) = chunk.arguments
    spelled = text._encoded(TEXTS)
    for i, ids in enumerate(spelled):
        own = tokens[i][chunk.kept[i]].tolist()
        assert own == ids[-CONTEXT:]
        assert chunk.labels["tok"][i][chunk.kept[i]].tolist() == [*own[1:], IGNORED]
        assert (chunk.labels["tok"][i][~chunk.kept[i]] == IGNORED).all()
        assert chunk.document[chunk.document == i].numel() == len(own)
        assert chunk.seen[chunk.document == i].tolist() == list(range(len(own)))
    assert len(spelled[2]) > CONTEXT
    assert tokens.shape[1] == CONTEXT
    assert text.first_tokens(TEXTS) == [ids[0] for ids in spelled]
    with pytest.raises(RequestError, match="'' has no token"):
        text.prompts(["the", ""], CPU)


def test_padding_does_not_change_what_is_read(members):
    together = members.task.prompts(TEXTS, CPU)
    site = members.sites[1]
    every = members.read(0, together, [site])[site]
    for i, one in enumerate(TEXTS):
        alone = members.read(0, members.task.prompts([one], CPU), [site])[site]
        torch.testing.assert_close(every[together.document == i], alone, atol=1e-4, rtol=1e-4)


def test_a_vector_is_the_difference_of_means_at_last_tokens(members):
    contrast = prompt_contrasts()[0]
    site = members.sites[1]
    (found,) = prompt_vectors(members, site, [contrast])
    (back,) = prompt_vectors(members, site, [replace(contrast, sign=-1)])
    means = []
    for side in (contrast.positive, contrast.negative):
        ends = [members.read(1, members.task.prompts([one], CPU), [site])[site][-1] for one in side]
        means.append(torch.stack(ends).double().mean(0))
    torch.testing.assert_close(found[1], means[0] - means[1], atol=1e-4, rtol=1e-4)
    assert torch.equal(back, -found)
    assert found.shape == (2, 31)  # without the mean over dimensions, which LayerNorm takes away


def test_targets_are_first_tokens_that_the_other_side_does_not_have(text):
    contrast = replace(
        prompt_contrasts()[0], positive_words=(" river", " stone"), negative_words=(" tree", " stone")
    )
    target = check_prompts(contrast, text)
    river, tree, stone = text.first_tokens([" river", " tree", " stone"])
    assert target.head == "tok"
    assert stone not in (*target.positive, *target.negative)
    assert river in target.positive or river == tree
    with pytest.raises(RequestError, match="give other words"):
        check_prompts(replace(contrast, positive_words=(" stone",)), text)


def test_language_models_are_steered_by_prompts_at_the_middle_site(members, tmp_path):
    own = {"name": "where", "target": {"positive": [" river"], "negative": [" bridge"]}}
    lines = [
        json.dumps({"class": one, "text": f"number {i} is {one} the stone"})
        for one in ("under", "over")
        for i in range(50)
    ]
    path = Path(tmp_path / "where.jsonl")
    path.write_text("\n".join(lines))
    asked = Steering.of([{**own, "prompts": str(path)}])
    source = ModelActivations(
        members.models, members.sites, members.task, members.probe, CPU, members.coordinates
    )
    ends = [(0, 3), (1, 3)]
    whole = Evidence(
        "lm",
        ends,
        pairs_of(ends),
        source,
        blocks=4,
        functions=lambda _: members,
        options={"steering": replace(asked, doses=(1.0,))},
    )
    frame = table(steering.study_rows(whole), STUDIES["steering"].columns)
    assert frame["site"].unique().to_list() == [members.sites[1]]
    shipped = {one.name for one in prompt_contrasts() if target_of(one, members.task) is not None}
    assert set(frame["contrast"].drop_nulls()) == {*shipped, "where"}
    assert shipped
    assert frame["head"].drop_nulls().unique().to_list() == ["tok"]
    assert set(frame["group"]) == {"named"}
    for role in ("estimate", "control", "ceiling", "null"):
        assert not frame.filter(metric="on_target", role=role).is_empty()
    ceilings = frame.filter(role="ceiling").sort("contrast", "target")
    off, whole_kl = (ceilings.filter(metric=name) for name in ("kl_off_target", "kl"))
    assert (off["value"] > 0).all()
    assert (off["value"] <= 1.5 * whole_kl["value"]).all()  # of the other tokens alone, renormalised
    contrast = contrast_of({**own, "prompts": str(path)})
    assert frame.filter(metric="on_target", role="ceiling", contrast="where").height == 2
    assert len(contrast.positive) == 50
    assert frame.filter(pl.col("metric") == "spearman").is_empty()
