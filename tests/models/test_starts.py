"""A model that starts at a site says what it says from its tokens on; sequences laid flat say the same to rounding."""

from dataclasses import replace

import pytest
import torch

from polymorph.components.ablation import documents_of, parts_of
from polymorph.components.attribution import slopes_of
from polymorph.models.activations import Edit
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.functions import Functions
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import Dyck

CONFIG = DyckTransformerConfig(n_layers=2, d_model=32, n_heads=2, d_head=16, d_mlp=32, init_std=0.3)
ROUNDING = 1e-4  # of logits of the size of 10 in float32; 1e-5 was seen


def functions_of(seeds: int = 1) -> Functions:
    models = [CONFIG.untrained(seed).eval().requires_grad_(False) for seed in range(seeds)]
    return Functions(models, CONFIG.sites, Dyck(), ProbeConfig(fit=20, eval=20), torch.device("cpu"))


def edits() -> list[Edit]:
    return [lambda x: x, lambda x: x + 1.0, torch.zeros_like]


@pytest.mark.parametrize("site", CONFIG.sites)
def test_from_a_site_on_nothing_changes(site: str) -> None:
    functions = functions_of()
    for chunk in functions.inputs("eval"):
        start = functions.stream(0, chunk, site)
        for edit in edits():
            whole = functions.logits(0, chunk, site, edit)
            rest = functions.logits(0, chunk, site, edit, start)
            assert all(torch.equal(rest[head], whole[head]) for head in whole)


def test_a_start_of_another_member_is_not_the_same() -> None:
    functions, site = functions_of(2), CONFIG.sites[2]
    chunk = next(functions.inputs("eval"))
    own = functions.logits(0, chunk, site, lambda x: x, functions.stream(0, chunk, site))
    other = functions.logits(0, chunk, site, lambda x: x, functions.stream(1, chunk, site))
    assert not torch.allclose(own["tok"], other["tok"])


def test_slopes_are_those_of_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = functions_of()
    parts, documents = parts_of(functions, 0), documents_of(functions, 200, 4)
    found = [slopes_of(functions, 0, parts, documents, one)([0.0, 0.6]) for one in parts.components]
    monkeypatch.setattr(functions.models[0], "starts_at", ())
    assert functions.stream(0, documents.chunks[0], CONFIG.sites[0]) is None
    whole = [slopes_of(functions, 0, parts, documents, one)([0.0, 0.6]) for one in parts.components]
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))


@pytest.mark.skipif(not CONFIG.flat_ready(), reason="takes a C++ compiler")
def test_sequences_laid_flat_give_the_same_numbers_also_in_copies() -> None:
    functions = functions_of()
    model = functions.models[0]
    for chunk in functions.inputs("eval"):
        rows = [replace(chunk, arguments=tuple(a.repeat(k, 1) for a in chunk.arguments)) for k in (1, 3)]
        for copied in rows:
            each = []
            for flat in (False, True):
                each.append(model(*copied.arguments, **copied.keywords, flat=flat))
            assert all((each[0][head] - each[1][head]).abs().max() < ROUNDING for head in each[0])
            assert each[1]["tok"].shape[0] == copied.arguments[0].shape[0]


@pytest.mark.skipif(not CONFIG.flat_ready(), reason="takes a C++ compiler")
def test_activations_are_read_as_ever_whatever_a_model_can() -> None:
    functions = functions_of()
    model, site = functions.models[0], CONFIG.sites[-1]
    chunk = next(functions.inputs("eval"))
    before, said = functions.read(0, chunk, [site])[site], functions.logits(0, chunk)["tok"]
    model.lays_flat = True
    assert torch.equal(functions.read(0, chunk, [site])[site], before)
    flat = functions.logits(0, chunk)["tok"]
    assert not torch.equal(flat, said)
    assert (flat - said).abs().max() < ROUNDING
