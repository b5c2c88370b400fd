"""Language models of `transformers` under hooks: the same logits, and sites that are the residual stream."""

import copy

import pytest
import torch
from language_models import LAYERS, D, final_norm, gpt2, gpt_neox, lively, llama, sequential_neox, tokens
from torch import Tensor

from polymorph.errors import RequestError
from polymorph.models.activations import activations, coordinates_of, logits, token_losses
from polymorph.models.architecture import mean_free_basis
from polymorph.models.causal_lm import HookedCausalLM, float32_weights, residual_sites
from polymorph.models.pretrained.description import check_answers, describe
from polymorph.models.pretrained.reference import weights_digest
from polymorph.models.sites import site_names
from polymorph.tasks.task import IGNORED, Chunk

KINDS = {"gpt_neox": gpt_neox, "sequential gpt_neox": sequential_neox, "gpt2": gpt2, "llama": llama}
LAST = f"blocks.{LAYERS - 1}.hook_resid_post"


def chunk_of(read: Tensor) -> Chunk:
    rows, length = read.shape
    labels = torch.cat([read[:, 1:], torch.full((rows, 1), IGNORED)], 1)
    document = torch.arange(rows).repeat_interleave(length)
    kept = torch.ones_like(read, dtype=torch.bool)
    position = torch.arange(length).repeat(rows)
    return Chunk((read,), {"tok": labels}, kept, document, position, position)


@pytest.fixture(scope="module", params=list(KINDS))
def both(request: pytest.FixtureRequest):
    """The model of `transformers`, untouched, and the same one hooked."""
    model = lively(KINDS[request.param]())
    return model, HookedCausalLM(copy.deepcopy(model))


def test_logits_are_those_of_transformers(both) -> None:
    model, hooked = both
    with torch.no_grad():
        torch.testing.assert_close(hooked(tokens())["tok"], model(tokens()).logits, rtol=1e-5, atol=1e-5)


def test_the_last_site_is_the_input_of_the_final_norm_and_not_its_output(both) -> None:
    model, hooked = both
    seen: dict[str, Tensor] = {}
    handle = final_norm(model).register_forward_hook(
        lambda module, inputs, output: seen.update(before=inputs[0], after=output)
    )
    with torch.no_grad():
        model(tokens())
    handle.remove()
    chunk = chunk_of(tokens())
    found = activations(hooked, chunk, [LAST])[LAST]
    torch.testing.assert_close(found, seen["before"].flatten(0, 1), rtol=1e-5, atol=1e-5)
    assert (found - seen["after"].flatten(0, 1)).abs().max() > 0.1  # what `hidden_states[-1]` is


def test_every_site_is_a_hidden_state_of_transformers(both) -> None:
    model, hooked = both
    with torch.no_grad():
        states = model(tokens(), output_hidden_states=True).hidden_states
    sites = ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(LAYERS - 1))]
    found = activations(hooked, chunk_of(tokens()), sites)
    for site, state in zip(sites, states, strict=False):
        torch.testing.assert_close(found[site], state.flatten(0, 1), rtol=1e-5, atol=1e-5)


def test_a_parallel_block_has_no_middle(both) -> None:
    model, hooked = both
    parallel = bool(getattr(model.config, "use_parallel_residual", False))
    assert residual_sites(hooked, LAYERS) == site_names([not parallel] * LAYERS)
    if parallel:
        with pytest.raises(ValueError, match=r"no hook point blocks\.0\.hook_resid_mid"):
            activations(hooked, chunk_of(tokens()), ["blocks.0.hook_resid_mid"])


def test_reading_leaves_nothing_behind(both) -> None:
    _, hooked = both
    chunk = chunk_of(tokens())
    before = logits(hooked, chunk)["tok"]
    activations(hooked, chunk, ["blocks.1.hook_resid_post"])
    assert torch.equal(before, logits(hooked, chunk)["tok"])


def test_a_model_is_described_as_it_is(both) -> None:
    model, _ = both
    found, answers = describe(copy.deepcopy(model))
    assert (found.d_model, found.n_layers, found.model_type) == (D, LAYERS, model.config.model_type)
    assert found.layer_norm == (model.config.model_type != "llama")
    assert found.sites[-1] == LAST
    check_answers(model, answers, "it")
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    with pytest.raises(RequestError, match="it answers otherwise"):
        check_answers(other, answers, "it")


# The direction that LayerNorm takes away.


@pytest.mark.parametrize("d", [2, 3, 64, 512])
def test_the_basis_is_orthonormal_without_mean_and_close_to_the_axes(d: int) -> None:
    basis = mean_free_basis(d)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(d - 1).double(), rtol=0, atol=1e-12)
    assert basis.sum(0).abs().max() < 1e-12
    if d >= 64:  # every coordinate is nearly an axis: a privileged one still shows
        assert basis.diagonal().min() > 1 - 2 / d**0.5


def test_without_the_mean_nothing_changes_where_there_is_layer_norm_and_much_where_there_is_not(both) -> None:
    model, hooked = both
    chunk, site = chunk_of(tokens()), "blocks.0.hook_resid_post"

    def shifted(x: Tensor) -> Tensor:
        return x + torch.linspace(-3, 3, len(x))[:, None]

    moved = (logits(hooked, chunk, site, shifted)["tok"] - logits(hooked, chunk)["tok"]).abs().max()
    assert (moved < 1e-4) == (model.config.model_type != "llama")
    assert moved < 1e-4 or moved > 0.1


def test_an_edit_in_coordinates_leaves_the_rest_of_the_stream(both) -> None:
    _, hooked = both
    chunk, site = chunk_of(tokens()), "blocks.1.hook_resid_post"
    coordinates = coordinates_of(True, D)
    assert coordinates is not None
    same = logits(hooked, chunk, site, lambda x: x, coordinates)["tok"]
    torch.testing.assert_close(same, logits(hooked, chunk)["tok"], rtol=1e-5, atol=1e-5)
    whole = logits(hooked, chunk, site, lambda x: 2 * x - (x.mean(-1, keepdim=True)))["tok"]
    less = logits(hooked, chunk, site, lambda c: 2 * c, coordinates)["tok"]
    torch.testing.assert_close(less, whole, rtol=1e-4, atol=1e-4)  # twice all but the mean, once the mean
    read = activations(hooked, chunk, [site], coordinates)[site]
    assert read.shape == (40, D - 1)


def test_a_token_without_a_label_has_no_loss(both) -> None:
    _, hooked = both
    losses = token_losses(hooked, chunk_of(tokens())).view(2, 20)
    assert bool((losses[:, -1] == 0).all())
    assert bool((losses[:, :-1] > 0).all())


# Weights.


def test_the_digest_is_of_names_shapes_and_values() -> None:
    weights = float32_weights(lively(gpt_neox()))
    again = dict(reversed(weights.items()))
    assert weights_digest(weights) == weights_digest(again)
    name = "gpt_neox.layers.1.attention.dense.weight"
    for changed in (
        {**weights, name: weights[name] + 1e-7 * (torch.arange(D) == 3)},
        {**weights, name: weights[name].T},
        {**{key: value for key, value in weights.items() if key != name}, "other": weights[name]},
    ):
        assert weights_digest(changed) != weights_digest(weights)
