"""What is changed in a decoy, and what is not."""

import pytest
import torch
from toy_models import SMALL, Toy, dyck_functions, table

from polymorph.components.decoys import AVERAGED, DECOYS, NOISE, SWAPPED, decoys_of
from polymorph.models.dyck_transformer.model import DyckTransformer


def made(model) -> dict:
    return dict(decoys_of(model, "depth", 9, lambda name: torch.Generator().manual_seed(DECOYS.index(name))))


@pytest.fixture
def model() -> DyckTransformer:
    return DyckTransformer(SMALL, 3).eval().requires_grad_(False)


def test_neighbouring_depths_are_the_same_and_nothing_else_changes(model):
    decoy = made(model)[AVERAGED]
    before, after = model.state_dict(), decoy.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"unembed.depth.W_U"}
    new, old = after["unembed.depth.W_U"], before["unembed.depth.W_U"]
    for pair in range(4):
        mean = old[:, 2 * pair : 2 * pair + 2].mean(1)
        assert torch.allclose(new[:, 2 * pair], mean)
        assert torch.equal(new[:, 2 * pair], new[:, 2 * pair + 1])
    assert torch.equal(new[:, 8], old[:, 8])
    functions = dyck_functions([model, decoy])
    logits = functions.logits(1, next(functions.inputs("eval")))
    assert torch.equal(logits["depth"][:, 0], logits["depth"][:, 1])
    assert torch.equal(logits["tok"], functions.logits(0, next(functions.inputs("eval")))["tok"])


def test_layers_change_places(model):
    before, after = model.state_dict(), made(model)[SWAPPED].state_dict()
    for name in before:
        other = name.replace("blocks.0", "x").replace("blocks.1", "blocks.0").replace("x", "blocks.1")
        assert torch.equal(after[name], before[other])


def test_noise_is_relative_to_every_parameter(model):
    before = dict(model.named_parameters())
    for name, share in NOISE.items():
        after = dict(made(model)[name].named_parameters())
        for own in ("W_E", "blocks.1.mlp.W_in", "ln_final.w"):
            noise = (after[own] - before[own]).square().mean() / before[own].square().mean()
            # 16 to 640 numbers: χ² spreads by √(2/16) at most
            assert float(noise.sqrt()) == pytest.approx(share, rel=0.5)


def test_decoys_are_the_same_again_and_leave_the_member_alone(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = made(model), made(model)
    assert list(first) == list(DECOYS)
    for name in DECOYS:
        pairs = zip(first[name].parameters(), second[name].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_cannot_be_made_is_left_out():
    toy = Toy([lambda x: x], lambda x: x.sum(-1), table()).eval()
    found = decoys_of(toy, "tok", 2, lambda name: torch.Generator().manual_seed(0))
    assert [name for name, _ in found] == list(NOISE)
