"""The step of members one after another, on sequences laid end to end: the same numbers as the plain step."""

import pytest
import torch
from torch.func import functional_call

from polymorph.kernels.ragged_attention import has_kernel, ragged_attention
from polymorph.models.attention import attend
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.dyck.task import Dyck
from polymorph.tasks.task import IGNORED
from polymorph.training.config import OptimizerConfig, TrainerConfig
from polymorph.training.module import StackModule
from polymorph.training.numerics import StepMode
from polymorph.training.stack import Stack

pytestmark = pytest.mark.skipif(not has_kernel(16), reason="there is no C++ compiler")
LENGTHS = (64, 1, 3, 17, 16, 4, 5, 120, 2)
FLAT = StepMode(layout="flat")
FLAT_BF16 = StepMode("bfloat16", "flat")


def module_of(seeds: tuple[int, ...], mode: StepMode, frozen: tuple[str, ...] = ()) -> StackModule:
    members = [DyckTransformer(DyckTransformerConfig(), seed) for seed in seeds]
    for member in members:
        for name, parameter in member.named_parameters():
            parameter.requires_grad_(name not in frozen)
    trainer = TrainerConfig(batch_size=16, log_every=1)
    return StackModule(Stack(members), list(seeds), Dyck(), OptimizerConfig(), trainer, mode=mode)


def gradients(module: StackModule) -> dict[str, torch.Tensor]:
    module.training_step(module.batches(torch.arange(3))[2], 0).backward()
    return {name: p.grad for name, p in module.stack.named_parameters() if p.grad is not None}


def relative(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).norm() / other[name].norm()) for name in other)


# Attention.


@pytest.mark.parametrize("d_head", [16, 32])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_ragged_attention_is_attention_inside_each_sequence(
    d_head: int, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    starts = torch.tensor([0, *LENGTHS]).cumsum(0)
    end = int(starts[-1])
    qkv = torch.randn(end + 7, 3, 4, d_head, generator=generator).to(dtype).requires_grad_()
    plain = qkv.detach()[:end].double().requires_grad_()
    grad = torch.randn(end + 7, 4, d_head, generator=generator).to(dtype)
    out = ragged_attention(qkv, starts)[0]
    out.backward(grad)
    spans = zip(starts.tolist(), starts.tolist()[1:], strict=False)
    expected = torch.cat([attend(plain[a:b], ((1, b - a),)) for a, b in spans])
    expected.backward(grad[:end].double())
    assert plain.grad is not None
    assert qkv.grad is not None
    assert float((out[:end] - expected).detach().abs().max()) < tolerance
    assert float((qkv.grad[:end] - plain.grad).abs().max()) < tolerance
    assert not out[end:].any()
    assert not qkv.grad[end:].any()


def test_ragged_attention_is_an_operator_that_a_compiler_may_trust() -> None:
    qkv, starts = torch.randn(20, 3, 2, 16, requires_grad=True), torch.tensor([0, 5, 17])
    torch.library.opcheck(ragged_attention, (qkv, starts))


def test_the_future_of_a_sequence_and_other_sequences_count_nothing() -> None:
    starts = torch.tensor([0, 9, 20])
    qkv = torch.randn(20, 3, 2, 16)
    changed = qkv.clone()
    changed[5:9] += 1
    before, after = ragged_attention(qkv, starts)[0], ragged_attention(changed, starts)[0]
    same = (before == after).flatten(1).all(1)
    assert same.tolist() == [not 5 <= token < 9 for token in range(20)]


@pytest.mark.parametrize("starts", [[0, 5, 21], [1, 5, 20], [0, 9, 5, 20], [0], [0.0, 20.0]], ids=str)
def test_starts_that_are_none_are_refused(starts: list[float]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"starts go up from 0 to at most 20|by int64"):
        ragged_attention(torch.randn(20, 3, 2, 16), torch.tensor(starts))


def test_other_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"float64.*float32 or bfloat16"):
        ragged_attention(torch.randn(20, 3, 2, 16).double(), torch.tensor([0, 20]))


def test_an_empty_sequence_among_others_counts_nothing() -> None:
    qkv = torch.randn(20, 3, 2, 16)
    with_empty, without = (ragged_attention(qkv, torch.tensor(s))[0] for s in ([0, 9, 9, 20], [0, 9, 20]))
    assert torch.equal(with_empty, without)


def test_threads_touch_no_bit_of_attention() -> None:
    starts = torch.tensor([0, *LENGTHS]).cumsum(0)
    qkv = torch.randn(int(starts[-1]), 3, 4, 16)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(ragged_attention(qkv, starts)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


# Sequences end to end.


def test_sequences_laid_end_to_end_lose_no_token_and_have_no_pad() -> None:
    task = Dyck()
    batch = task.batches(torch.tensor([3, 4]), torch.tensor([0]), 64)[0]
    flat = task.flat_inputs(batch)
    assert flat is not None
    tokens, positions, starts = flat.arguments
    assert tokens.shape == positions.shape == (2, 1, task.capacity(64))
    for member in range(2):
        for i, (a, b) in enumerate(zip(starts[member].tolist(), starts[member].tolist()[1:], strict=False)):
            length = int(batch.lengths[member, i])
            assert torch.equal(tokens[member, 0, a:b], batch.tokens[member, i, :length])
            assert positions[member, 0, a:b].tolist() == list(range(length))
            for head, label in batch.labels().items():
                assert torch.equal(flat.labels[head][member, 0, a:b], label[member, i, :length])
        end = int(starts[member, -1])
        assert end == int(batch.lengths[member].sum())
        assert all(bool((label[member, 0, end:] == IGNORED).all()) for label in flat.labels.values())


def test_a_batch_with_more_tokens_than_there_is_room_for_goes_the_other_way() -> None:
    long = Dyck(DyckConfig(min_length=62, eval_max_length=62))
    batch = long.batches(torch.tensor([0]), torch.tensor([0]), 16)[0]
    assert Dyck().flat_inputs(batch) is None
    module = module_of((0,), FLAT)
    loss, labels = module.losses(batch)
    assert labels["tok"].shape[-1] == 16 * 64
    plain, _ = module_of((0,), StepMode()).losses(batch)
    torch.testing.assert_close(loss.total, plain.total)


def test_about_one_batch_in_160_has_no_room() -> None:
    lengths = Dyck().batches(torch.tensor([0]), torch.arange(2000), 64).lengths.sum(-1)
    beyond = float((lengths > Dyck().capacity(64)).double().mean())
    assert 0.002 < beyond < 0.012


# The step.


def test_gradients_are_those_of_the_plain_step() -> None:
    plain, flat = gradients(module_of((0, 1), StepMode())), gradients(module_of((0, 1), FLAT))
    assert relative(flat, plain) < 1e-5


def test_gradients_in_bfloat16_are_those_of_the_plain_step_to_its_rounding() -> None:
    plain, flat = gradients(module_of((0, 1), StepMode())), gradients(module_of((0, 1), FLAT_BF16))
    assert 1e-4 < relative(flat, plain) < 0.05  # eight bits, so it cannot be equal either


def test_metrics_are_those_of_the_plain_step() -> None:
    latest = []
    for mode in (StepMode(), FLAT):
        module = module_of((0, 1), mode)
        gradients(module)
        latest.append(module.latest)
    assert latest[0].keys() == latest[1].keys()
    for name, expected in latest[0].items():
        torch.testing.assert_close(latest[1][name], expected, msg=name)


@pytest.mark.parametrize("mode", [FLAT, FLAT_BF16], ids=["float32", "bfloat16"])
def test_a_member_of_a_stack_has_the_bits_that_it_has_alone(mode: StepMode) -> None:
    together = gradients(module_of((5, 6, 7), mode))
    alone = gradients(module_of((6,), mode))
    assert all(torch.equal(together[name][1], alone[name][0]) for name in alone)


def test_frozen_parameters_get_no_gradient_and_change_no_other() -> None:
    free, frozen = gradients(module_of((0,), FLAT)), gradients(module_of((0,), FLAT, ("W_E",)))
    assert set(free) - set(frozen) == {"W_E"}
    assert all(torch.equal(frozen[name], free[name]) for name in frozen)


def test_gradients_scale_with_what_comes_from_above() -> None:
    module = module_of((0, 1), FLAT)
    batch = module.batches(torch.arange(1))[0]
    once, twice = (module.losses(batch)[0].total for _ in range(2))
    parameters = [p for p in module.stack.parameters() if p.requires_grad]
    one = torch.autograd.grad(once.sum(), parameters)
    two = torch.autograd.grad((twice * torch.tensor([1.0, 2.0])).sum(), parameters)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(2 * a[1], b[1])


def test_the_model_called_with_starts_is_the_model_called_with_groups() -> None:
    model = DyckTransformer(DyckTransformerConfig(), 0)
    task = Dyck()
    batch = task.batches(torch.tensor([0]), torch.tensor([0]), 8)[0]
    flat = task.flat_inputs(batch)
    assert flat is not None
    tokens, positions, starts = (argument[0] for argument in flat.arguments)
    logits = functional_call(model, {}, (tokens, positions, starts))
    for i in range(8):
        length = int(batch.lengths[0, i])
        own = model(batch.tokens[:1, i, :length])
        a = int(starts[i])
        for head in own:
            torch.testing.assert_close(logits[head][0, a : a + length], own[head][0], atol=1e-5, rtol=1e-4)
