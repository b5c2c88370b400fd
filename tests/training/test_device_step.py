"""The step as an accelerator would take it, as far as a CPU can tell: nothing in it waits for the device."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.tasks.dyck.task import Dyck
from polymorph.training.config import OptimizerConfig, TrainerConfig
from polymorph.training.module import StackModule
from polymorph.training.numerics import StepMode
from polymorph.training.stack import Stack

PADDED = StepMode("bfloat16", "padded")
WAITING = re.compile(r"aten\.(_local_scalar_dense|item|nonzero|masked_select|unique\w*|equal|is_nonzero)\b")
"""Operators whose result the host has to wait for."""


class Watch(TorchDispatchMode):
    """Every operator by name, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))

    @property
    def waiting(self) -> list[str]:
        return [name for name in self.names if WAITING.search(name)]


def module_of(members: int) -> StackModule:
    stack = Stack([DyckTransformer(DyckTransformerConfig(), seed) for seed in range(members)])
    trainer = TrainerConfig(batch_size=8)
    return StackModule(stack, list(range(members)), Dyck(), OptimizerConfig(), trainer, mode=PADDED)


def step(module: StackModule, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step from the generation of its data to the update."""
    batch = next(iter(module.train_dataloader()))
    with torch.autocast("cpu", torch.bfloat16):
        loss = module.training_step(batch, 0)
    optimizer.zero_grad()
    loss.backward()
    module.configure_gradient_clipping(optimizer)
    optimizer.step()
    module.step += 1
    return loss


@pytest.mark.parametrize("members", [1, 4])
def test_no_operator_of_a_step_waits_for_the_device(members: int) -> None:
    module = module_of(members)
    optimizer = module.configure_optimizers()
    with Watch() as watch:
        step(module, optimizer)
    assert len(watch.names) > 100
    assert watch.waiting == []


def test_one_that_waits_would_be_seen() -> None:
    with Watch() as watch:
        torch.ones(3).sum().item()
        torch.ones(3).nonzero()
    assert len(watch.waiting) == 2


def test_a_step_runs_on_tensors_without_data() -> None:
    """Fake tensors have shapes alone, so nothing that depends on a value can be asked of them."""
    module = module_of(2)
    optimizer = module.configure_optimizers()
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert step(module, optimizer).shape == ()


def test_what_asks_for_a_value_does_not() -> None:
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.ones(3).sum().item()


def test_the_step_compiles_as_one_graph() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    module = module_of(2)
    module._call = torch.compile(module.stack, backend=count, fullgraph=True, dynamic=False)
    batches = iter(module.train_dataloader())
    for _ in range(2):  # the second step brings nothing new
        module.logits(module.inputs(next(batches)))
    assert len(graphs) == 1


def test_every_batch_has_the_same_layout() -> None:
    module = module_of(2)
    batches = iter(module.train_dataloader())
    assert {module.inputs(next(batches)).keywords["layout"] for _ in range(3)} == {((8, 64),)}
