"""The GPT-NeoX that is trained here is the one of `transformers`, alone and in a stack."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, GPTNeoXForCausalLM

from polymorph.models.architecture import Trainable
from polymorph.models.gpt_neox.config import GPTNeoXArchitecture
from polymorph.models.registry import ARCHITECTURES
from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.text.config import TextConfig
from polymorph.training.stack import Stack

SMALL = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_mlp": 32, "d_vocab": 300, "n_ctx": 24}


def tokens(members: int = 1) -> torch.Tensor:
    return torch.randint(0, 300, (members, 3, 10), generator=torch.Generator().manual_seed(0))


def test_it_is_a_function_of_the_seed_and_draws_no_global_randomness() -> None:
    before = torch.get_rng_state()
    one, same, other = (GPTNeoXArchitecture(**SMALL).untrained(seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    for (name, a), b, c in zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c), name


def test_a_stack_of_them_gives_the_logits_and_gradients_of_each() -> None:
    members = [GPTNeoXArchitecture(**SMALL).untrained(seed).double() for seed in range(3)]
    stack, read = Stack(members), tokens(3)
    together = stack(read)["tok"]
    together.square().sum().backward()
    for index in range(3):
        alone = GPTNeoXArchitecture(**SMALL).untrained(index).double()
        own = alone(read[index])["tok"]
        torch.testing.assert_close(together[index], own, rtol=0, atol=1e-12)
        own.square().sum().backward()
        for name, parameter in stack.named_member_parameters():
            wanted = alone.get_parameter(name).grad
            assert wanted is not None
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad[index], wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("parallel", [True, False])
def test_transformers_opens_what_is_published(tmp_path, parallel: bool) -> None:
    architecture = GPTNeoXArchitecture(**SMALL, parallel=parallel)
    model = architecture.untrained(7)
    assert isinstance(model, nn.Module)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    opened_and_saved = GPTNeoXForCausalLM(architecture.huggingface())
    opened_and_saved.save_pretrained(tmp_path / "theirs")
    assert set(weights) == set(load_file(tmp_path / "theirs" / "model.safetensors"))
    save_file(weights, tmp_path / "weights.safetensors")
    for name, data in architecture.files().items():
        (tmp_path / name).write_bytes(data)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(opened, GPTNeoXForCausalLM)
    with torch.no_grad():
        read = tokens()[0]
        torch.testing.assert_close(opened(read).logits, model(read)["tok"], rtol=0, atol=1e-5)
        hooked = architecture.hooked(weights, None, {})
        torch.testing.assert_close(hooked(read)["tok"], model(read)["tok"], rtol=0, atol=1e-5)
    again = ARCHITECTURES["gpt_neox"](**{"name": "gpt_neox", **SMALL, "parallel": parallel})
    assert architecture.sites == list(again.sites)


def test_weights_that_lack_a_parameter_are_no_model() -> None:
    architecture = GPTNeoXArchitecture(**SMALL)
    weights = dict(architecture.untrained(0).named_parameters())
    del weights["embed_out.weight"]
    with pytest.raises(KeyError, match="embed_out"):
        architecture.hooked(weights, None, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 15}, "model.d_model=15"),
        ({"n_layers": 0}, "model.n_layers=0: at least 1"),
        ({"rotary_pct": 0.0}, "model.rotary_pct=0.0"),
        ({"rotary_pct": 0.1}, "model.rotary_pct=0.1"),
    ],
)
def test_shapes_that_cannot_be_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        GPTNeoXArchitecture(**{**SMALL, **options})


def test_it_learns_text_that_fits() -> None:
    architecture = GPTNeoXArchitecture(**SMALL)
    assert isinstance(architecture, Trainable)
    architecture.check_task(TextConfig(context=24, vocab_size=300))
    for task, message in (
        (DyckConfig(), "learns task=text"),
        (TextConfig(context=25, vocab_size=300), "task.context=25: at most model.n_ctx=24"),
        (TextConfig(context=24, vocab_size=301), "task.vocab_size=301: at most model.d_vocab=300"),
    ):
        with pytest.raises(ValueError, match=message):
            architecture.check_task(task)
