"""A member trained in a stack is the member trained alone."""

import logging
from functools import cache

import lightning as L
import pytest
import torch

from polymorph.models.dyck_transformer.config import IO_PARAMETERS, DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.dyck.task import Dyck
from polymorph.tasks.packing import pack
from polymorph.training import module as module_under_test
from polymorph.training.config import OptimizerConfig, TrainerConfig
from polymorph.training.loss import head_losses, total
from polymorph.training.module import StackModule
from polymorph.training.stack import Stack

TEN = (0, 1, 2, 3, 4, 100, 101, 102, 103, 104)
STEPS = 50
STACKED_IS_ALONE = 2e-4
"""Largest difference of a weight after 50 steps of the paper's warm-up. The learning rate has then reached 3e-4.
Groups of packed sequences are as long as the longest of any member, so sums over tokens round differently in a
stack, and where a ReLU stands within a rounding of zero that decides a token's gradient: up to 1e-4 was seen."""

PAPER = (500, 60_000)  # steps of warm-up, and of all
QUICK = (50, 1_000)
ONE_LENGTH = {"min_length": 30, "max_length": 30}

Weights = dict[str, torch.Tensor]


def module_of(seeds, schedule=PAPER, batch=8, double=False, frozen=(), **task) -> StackModule:
    members = [DyckTransformer(DyckTransformerConfig(), seed) for seed in seeds]
    for member in members:
        member.double() if double else member
        for name, parameter in member.named_parameters():
            parameter.requires_grad_(name not in frozen)
    warmup, steps = schedule
    trainer = TrainerConfig(max_steps=steps, batch_size=batch, log_every=1)
    optimizer = OptimizerConfig(warmup_steps=warmup)
    return StackModule(Stack(members), list(seeds), Dyck(DyckConfig(**task)), optimizer, trainer)


def trained(module: StackModule, steps: int = STEPS) -> StackModule:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module)
    assert module.step == steps
    return module


def member(module: StackModule, index: int = 0) -> Weights:
    return module.stack.member_weights(index)


def difference(a: Weights, b: Weights) -> float:
    return max(float((a[name] - b[name]).detach().abs().max()) for name in b)


def same_bits(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


pytestmark = pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*GPU", "ignore:.*`logger=False`")


# The same beginning and the same data.


def test_members_begin_as_the_models_of_their_seeds():
    stack = module_of(TEN).stack
    assert stack.size == len(TEN)
    for index, seed in enumerate(TEN):
        model = DyckTransformer(DyckTransformerConfig(), seed)
        assert same_bits(stack.member_weights(index), dict(model.named_parameters()))
        assert set(stack.member_weights(index)) == set(model.state_dict()) - {"W_pos"}
    assert difference(stack.member_weights(0), stack.member_weights(1)) > 0.01


def test_members_see_the_data_of_their_seeds():
    steps = torch.tensor([0, 1, 49])
    together = module_of(TEN).batches(steps)
    for index, seed in enumerate(TEN):
        alone = module_of([seed]).batches(steps)
        assert torch.equal(together.tokens[:, index], alone.tokens[:, 0])
        assert torch.equal(together.valid[:, index], alone.valid[:, 0])
        assert torch.equal(together.depth[:, index], alone.depth[:, 0])


def test_the_loader_yields_the_steps_in_order_whatever_is_made_at_once():
    module = module_of([0, 1])
    module.trainer_config.max_steps = 11
    module.step = 2
    batches = list(module.train_dataloader())
    assert len(batches) == len(module.train_dataloader()) == 9
    for step, batch in enumerate(batches, start=2):
        assert torch.equal(batch.tokens, module.batches(torch.tensor([step]))[0].tokens)


# The same end.


@cache
def alone(seed: int) -> Weights:
    return member(trained(module_of([seed])))


def differences_to_alone(module: StackModule, members: int) -> list[float]:
    return [difference(member(module, index), alone(TEN[index])) for index in range(members)]


def test_ten_members_of_a_stack_are_ten_members_alone(record_property):
    found = differences_to_alone(trained(module_of(TEN)), len(TEN))
    record_property("largest_difference", max(found))
    print(f"\nten in a stack and alone, float32, {STEPS} steps: {max(found):.2e}")
    assert max(found) < STACKED_IS_ALONE
    start = DyckTransformer(DyckTransformerConfig(), TEN[0])
    assert difference(alone(TEN[0]), dict(start.named_parameters())) > 10 * STACKED_IS_ALONE


def test_a_clip_over_the_whole_stack_would_couple_its_members(monkeypatch):
    """The opposite: what `Trainer(gradient_clip_val=1)` would do is seen by the same comparison."""

    def coupled(parameters, largest, members):
        return torch.nn.utils.clip_grad_norm_(parameters, largest).expand(members)

    monkeypatch.setattr(module_under_test, "clip_members", coupled)
    found = differences_to_alone(trained(module_of(TEN)), 3)
    print(f"\nthe same with one clip over the stack: {min(found):.2e} … {max(found):.2e}")
    assert min(found) > 5 * STACKED_IS_ALONE


def test_in_float64_nothing_is_left_of_the_difference():
    """With the quick preset's learning rates, ten times as large. A ReLU within a rounding of zero is now
    10⁹ times less likely: what remains is 50 steps of rounding, 1e-15 each, with room for a thousand."""
    seeds = TEN[:3]
    together = trained(module_of(seeds, QUICK, double=True))
    for index in (0, 2):
        solo = member(trained(module_of([seeds[index]], QUICK, double=True)))
        assert all(value.dtype == torch.float64 for value in solo.values())
        assert difference(member(together, index), solo) < 1e-11


def test_with_sequences_of_one_length_stacked_and_alone_agree_to_a_rounding():
    """Every group then has the same length in both, so the sums over tokens are the same sums. The order of
    the members does not matter either."""
    together = trained(module_of(TEN, QUICK, **ONE_LENGTH), 20)
    for seeds in ([TEN[3]], [TEN[9], TEN[3]]):
        part = trained(module_of(seeds, QUICK, **ONE_LENGTH), 20)
        # Equal bits were seen. Libraries may choose their kernel by the number of members, so one rounding of
        # a weight of 1 a step is let pass.
        assert difference(member(part, seeds.index(TEN[3])), member(together, 3)) < 20 * 2**-24


# Nothing passes between members.


def stack_and_packed(seeds=(0, 1, 2), frozen=()):
    module = module_of(seeds, double=True, frozen=frozen)
    return module.stack, pack(module.batches(torch.tensor([3]))[0], 4)


def losses_of(stack, packed):
    logits = stack(*packed.arguments, **packed.keywords)
    return total(head_losses(logits, packed.labels))


def test_gradients_of_the_summed_loss_are_each_members_own():
    stack, packed = stack_and_packed()
    losses = losses_of(stack, packed)
    losses.sum().backward()
    for index in range(3):
        model = DyckTransformer(DyckTransformerConfig(), index).double()
        logits = model(*(values[index] for values in packed.arguments), **packed.keywords)
        labels = {head: label[index : index + 1] for head, label in packed.labels.items()}
        loss = total(head_losses({head: value[None] for head, value in logits.items()}, labels))
        loss.sum().backward()
        # float64 of order 1
        torch.testing.assert_close(losses[index].detach(), loss[0].detach(), rtol=0, atol=1e-12)
        for name, parameter in stack.named_member_parameters():
            wanted = model.get_parameter(name).grad
            torch.testing.assert_close(parameter.grad[index], wanted, rtol=0, atol=1e-12)


def test_the_loss_of_one_member_has_no_gradient_in_another():
    stack, packed = stack_and_packed()
    losses_of(stack, packed)[1].backward()
    for name, parameter in stack.named_member_parameters():
        reached = [bool(gradient.any()) for gradient in parameter.grad]
        assert reached == [False, True, False], name


def test_a_member_that_is_not_finite_leaves_the_bits_of_the_others():
    healthy, sick = module_of([0, 1, 2]), module_of([0, 1, 2])
    with torch.no_grad():
        dict(sick.stack.named_member_parameters())["blocks.0.mlp.W_in"][1, 3, 5] = torch.nan
    trained(healthy, 5)
    trained(sick, 5)
    assert same_bits(member(healthy, 0), member(sick, 0))
    assert same_bits(member(healthy, 2), member(sick, 2))
    assert not all(bool(value.isfinite().all()) for value in member(sick, 1).values())
    assert all(bool(value.isfinite().all()) for value in member(healthy, 1).values())
    assert sick.latest["loss"].isfinite().tolist() == [True, False, True]


# Frozen parameters.


def test_frozen_parameters_stay_and_all_others_move():
    seeds, frozen = (0, 1), set(IO_PARAMETERS)
    module = module_of(seeds, frozen=frozen)
    before = [member(module, index) for index in range(2)]
    trained(module, 3)
    for index in range(2):
        after = member(module, index)
        assert {name for name in after if torch.equal(after[name], before[index][name])} == frozen
    free = trained(module_of(seeds), 3)
    assert not any(torch.equal(value, before[0][name]) for name, value in member(free).items())


def test_members_that_freeze_different_parameters_make_no_stack():
    members = [DyckTransformer(DyckTransformerConfig(), seed) for seed in (0, 1)]
    members[1].W_E.requires_grad_(False)
    with pytest.raises(RuntimeError, match="requires_grad"):
        Stack(members)


# What a stack is made of.


def test_a_stack_has_copies_and_gives_copies():
    model = DyckTransformer(DyckTransformerConfig(), 0)
    before = model.W_E.detach().clone()
    stack = Stack([model])
    given = stack.member_weights(0)
    with torch.no_grad():
        dict(stack.named_member_parameters())["W_E"].zero_()
    assert torch.equal(model.W_E, before)
    assert torch.equal(given["W_E"], before)
    assert not bool(stack.member_weights(0)["W_E"].any())
    assert all(value.device.type == "cpu" and not value.requires_grad for value in given.values())


def test_the_weights_of_a_member_load_into_a_model_and_give_its_logits():
    stack, packed = stack_and_packed((5, 6))
    model = DyckTransformer(DyckTransformerConfig(), 99).double()
    missing, unexpected = model.load_state_dict(stack.member_weights(1), strict=False)
    assert (missing, unexpected) == (["W_pos"], [])
    logits = stack(*packed.arguments, **packed.keywords)
    for head, wanted in model(*(values[1] for values in packed.arguments), **packed.keywords).items():
        torch.testing.assert_close(logits[head][1], wanted, rtol=0, atol=1e-12)


def test_a_stack_of_any_module_and_of_one():
    members = [torch.nn.Linear(3, 2) for _ in range(4)]
    x = torch.ones(4, 5, 3)
    wanted = torch.stack([linear(row) for linear, row in zip(members, x, strict=True)])
    torch.testing.assert_close(Stack(members)(x), wanted)
    torch.testing.assert_close(Stack(members[:1])(x[:1]), wanted[:1])
    with pytest.raises(RuntimeError):
        Stack([torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)])
