"""What members compute: on held-out inputs, edited, and in parts of two members."""

import pytest
import torch
from torch import Tensor

from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.functions import Functions
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import DISTRIBUTIONS, Dyck

CPU = torch.device("cpu")
CONFIG = DyckTransformerConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32, init_std=0.3)
PROBE = ProbeConfig(fit=20, eval=30)


@pytest.fixture(scope="module")
def functions() -> Functions:
    models = [CONFIG.untrained(seed).eval().requires_grad_(False) for seed in range(2)]
    return Functions(models, CONFIG.sites, Dyck(), PROBE, CPU)


def test_held_out_sequences_are_those_of_the_evaluation_and_each_a_document(functions: Functions) -> None:
    for distribution in DISTRIBUTIONS:
        chunks = list(functions.inputs(distribution, 300))
        documents = torch.cat([chunk.document for chunk in chunks])
        assert documents.unique().tolist() == list(range(300))
        first = functions.task.evaluation(distribution, 0, 256, CPU)
        tokens = chunks[0].arguments[0][chunks[0].kept]
        for index in (0, 17, 255):
            own = tokens[chunks[0].document == index]
            assert torch.equal(own, first.tokens[0, index, : first.lengths[0, index]])
    with pytest.raises(ValueError, match="say how many sequences"):
        next(functions.inputs("long"))


def test_the_probe_is_read_whole(functions: Functions) -> None:
    assert [len(torch.cat([c.document for c in functions.inputs(s)]).unique()) for s in ("fit", "eval")] == [
        20,
        30,
    ]


@pytest.mark.parametrize("site", CONFIG.sites)
def test_a_member_stitched_to_itself_is_itself_and_to_another_is_neither(
    functions: Functions, site: str
) -> None:
    chunk = next(functions.inputs("eval"))

    def same(x: Tensor) -> Tensor:
        return x

    whole = [functions.logits(member, chunk) for member in (0, 1)]
    itself, mixed = functions.stitched(0, 0, chunk, site, same), functions.stitched(0, 1, chunk, site, same)
    for head in ("tok", "depth", "valid"):
        torch.testing.assert_close(itself[head], whole[0][head], rtol=0, atol=1e-5)
        assert all((mixed[head] - own[head]).abs().max() > 0.1 for own in whole)


def test_hooks_see_what_the_model_computes(functions: Functions) -> None:
    chunk = next(functions.inputs("eval"))
    seen: dict[str, tuple[int, ...]] = {}

    def ablate(values: Tensor, hook: object) -> Tensor:
        seen["mlp"] = tuple(values.shape)
        return torch.zeros_like(values)

    changed = functions.hooked_logits(1, chunk, [("blocks.0.hook_mlp_out", ablate)])
    assert seen["mlp"] == (*chunk.arguments[0].shape, 16)
    assert (changed["tok"] - functions.logits(1, chunk)["tok"]).abs().max() > 0.01
