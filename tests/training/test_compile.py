"""torch.compile is an option that changes speed, not results."""

import pytest
import torch

from polymorph.errors import RequestError
from polymorph.kernels.ragged_attention import has_kernel
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.tasks.dyck.task import Dyck
from polymorph.training.config import OptimizerConfig, TrainerConfig
from polymorph.training.module import StackModule
from polymorph.training.numerics import (
    LONG_TRAINING,
    Layout,
    StepMode,
    capability,
    resumed_mode,
    step_mode,
)
from polymorph.training.stack import Stack

CPU = torch.device("cpu")
GPU = torch.device("cuda")


def gradients(mode: StepMode) -> dict[str, torch.Tensor]:
    stack = Stack([DyckTransformer(DyckTransformerConfig(), seed) for seed in (0, 1)])
    module = StackModule(stack, [0, 1], Dyck(), OptimizerConfig(), TrainerConfig(batch_size=8), mode=mode)
    module.training_step(next(iter(module.train_dataloader())), 0).backward()
    return {name: p.grad for name, p in stack.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_a_compiled_step_has_the_gradients_of_the_plain_one(layout: Layout) -> None:
    plain, compiled = gradients(StepMode()), gradients(StepMode(layout=layout, compiled=True))
    assert plain.keys() == compiled.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(compiled[name], expected, rtol=1e-3, atol=1e-6)


# What `auto` means.


def mode_of(device: torch.device = CPU, ready: bool = True, **keys: object) -> StepMode:
    return step_mode(TrainerConfig(**keys), device, lambda: ready)  # type: ignore[arg-type]


def test_long_trainings_are_compiled_and_short_ones_are_not() -> None:
    size = 64
    assert mode_of(batch_size=size, max_steps=LONG_TRAINING // size + 1).compiled
    assert not mode_of(batch_size=size, max_steps=LONG_TRAINING // size - 1).compiled
    assert mode_of(batch_size=size, max_steps=1, compile=True).compiled
    assert not mode_of(compile=False).compiled


def test_without_a_compiler_everything_goes_the_plain_way() -> None:
    assert mode_of(ready=False) == StepMode(mode_of().precision)
    with pytest.raises(RequestError, match=r"trainer\.compile=true: a CPU needs a C\+\+ compiler"):
        mode_of(ready=False, compile=True)


@pytest.mark.skipif(not has_kernel(16), reason="there is no C++ compiler")
def test_heads_that_are_no_whole_vectors_go_the_plain_way() -> None:
    assert DyckTransformerConfig().flat_ready()
    assert not DyckTransformerConfig(d_head=8).flat_ready()


def test_precision_is_asked_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def processor(**there: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there)

    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    processor(avx2=True)
    assert mode_of().precision == "float32"
    assert mode_of(precision="bfloat16").precision == "bfloat16"
    processor(avx512_bf16=True)
    assert mode_of().precision == "bfloat16"
    assert mode_of(precision="float32").precision == "float32"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert mode_of().precision == "bfloat16"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert mode_of().precision == "float32"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert mode_of().precision == "float32"


def test_an_accelerator_has_shapes_that_it_need_not_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert mode_of(GPU) == StepMode("bfloat16", "padded", compiled=True)
    assert mode_of(GPU, max_steps=1) == StepMode("bfloat16", "padded", compiled=False)
    assert mode_of(GPU, compile=False) == StepMode("bfloat16", "padded", compiled=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)  # an old one
    assert mode_of(GPU).precision == "float32"


# What a training goes on with.


def began(layout: Layout, *, compiled: bool = False) -> dict[str, object]:
    return {"layout": layout, "compile": compiled}


FLAT, FLAT_COMPILED = StepMode("bfloat16", "flat"), StepMode("bfloat16", "flat", compiled=True)
GROUPS = StepMode("bfloat16", "groups")


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (FLAT_COMPILED, began("flat"), FLAT),
        (FLAT_COMPILED, began("groups"), GROUPS),
        (FLAT, began("flat", compiled=True), FLAT_COMPILED),
        (GROUPS, began("flat", compiled=True), GROUPS),  # cannot be had here, and is refused by its numerics
        (FLAT_COMPILED, {"compile": False}, FLAT_COMPILED),  # of a version that knew no layout
    ],
)
def test_auto_goes_on_as_the_members_began(
    now: StepMode, before: dict[str, object], expected: StepMode
) -> None:
    assert resumed_mode(now, [before, before], "auto") == expected
    assert resumed_mode(now, [], "auto") == now
    asked = now.compiled
    assert resumed_mode(now, [before], asked) == now


def test_members_that_began_differently_go_on_as_new_ones() -> None:
    assert resumed_mode(FLAT_COMPILED, [began("flat"), began("groups")], "auto") == FLAT_COMPILED


def test_the_limit_on_instructions_is_among_the_numerics(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    free = capability()
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "avx512_core_bf16")
    assert capability() == f"{free} at most AVX512_CORE_BF16"
