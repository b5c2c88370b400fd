"""Gradients in closed form are those that autograd finds of SAELens' own loss; compiled passes are the plain ones."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from sae_lens import TrainingSAE
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from polymorph.errors import RequestError
from polymorph.kernels import native
from polymorph.saes import trainers
from polymorph.saes.build import training_sae
from polymorph.saes.closed import Stepped, Weights, form_of, gradients
from polymorph.saes.config import SAEConfig
from polymorph.saes.kernels import compiled
from polymorph.saes.passes import EagerPasses, Passes, strongest_indices
from polymorph.saes.trainers import trainer_of, try_options

D, F, N = 16, 128, 100
EXACT = {"rtol": 1e-4, "atol": 1e-6}  # 1e-7 is met
PLAIN, L1 = EagerPasses(), 0.3
CPU = torch.device("cpu")
LOW = 0.03  # of a gradient's norm, of products of bfloat16, which round to 1/256; 0.02 is met
LOW_TOPK = 0.15  # tokens whose last choice rounding decides choose another feature; 0.08 is met


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=["plain", "compiled"])
def passes(request: pytest.FixtureRequest) -> Passes:
    return PLAIN if request.param == "plain" else compiled()


def sae_of(architecture: str, generator: torch.Generator, **options: Any) -> TrainingSAE[Any]:
    """One whose weights are all away from where they start."""
    sae = training_sae(SAEConfig(architecture=architecture, options=options, expansion=F // D), D, 0, {})
    for parameter in sae.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return sae


def theirs(sae: TrainingSAE[Any], x: Tensor, dead: Tensor | None) -> Stepped:
    given = TrainStepInput(x, {"l1": L1}, dead, 0, is_logging_step=False)
    out = sae.training_forward_pass(given)
    out.loss.backward()
    losses = {"loss": out.loss.detach(), **{name: loss.detach() for name, loss in out.losses.items()}}
    return (
        {name: p.grad for name, p in sae.named_parameters() if p.grad is not None},
        losses,
        (out.feature_acts != 0).sum(0).float(),
    )


def ours(
    sae: TrainingSAE[Any], x: Tensor, dead: Tensor | None, passes: Passes, precision: torch.dtype
) -> Stepped:
    own = {name: p.detach() for name, p in sae.named_parameters()}
    form = form_of(sae, passes, precision)
    return gradients(form, Weights(own, precision), x, dead, {"l1": L1}, len(x))


CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "standard": ("standard", {}, 0),
    "standard, not centred": ("standard", {"apply_b_dec_to_input": False}, 0),
    "gated": ("gated", {}, 0),
    "gated, not centred": ("gated", {"apply_b_dec_to_input": False}, 0),
    **{f"topk, {dead} dead": ("topk", {"k": 4}, dead) for dead in (0, 1, 2, D // 2, D, F)},
    "topk, not rescaled": ("topk", {"k": 4, "rescale_acts_by_decoder_norm": False}, 5),
    "topk of all": ("topk", {"k": F}, 5),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_saelens(
    generator: torch.Generator, passes: Passes, name: str, precision: torch.dtype
) -> None:
    architecture, options, count = CASES[name]
    sae, x = sae_of(architecture, generator, **options), torch.randn(N, D, generator=generator)
    dead = None
    if count:
        dead = torch.zeros(F, dtype=torch.bool)
        dead[torch.randperm(F, generator=generator)[:count]] = True
    reference, mine = theirs(sae, x, dead), ours(sae, x, dead, passes, precision)
    assert mine[0].keys() == reference[0].keys()
    if precision == torch.float32:
        for own, right in zip(mine, reference, strict=True):
            torch.testing.assert_close(own, right, **EXACT)
        return
    for key, value in reference[0].items():
        assert (mine[0][key] - value).norm() < (LOW_TOPK if architecture == "topk" else LOW) * value.norm()
    for key, value in reference[1].items():
        assert float(mine[1][key]) == pytest.approx(float(value), rel=1e-2)
    assert all(value.dtype == torch.float32 for part in (*mine[:2],) for value in part.values())


def test_a_large_mean_costs_bfloat16_nothing(generator: torch.Generator) -> None:
    """Where the decoder's bias has found it."""
    sae, x = sae_of("standard", generator), torch.randn(N, D, generator=generator)
    near = ours(sae, x, None, PLAIN, torch.bfloat16)[1]["mse_loss"]
    sae.b_dec.data += 1e4
    far = ours(sae, x + 1e4, None, PLAIN, torch.bfloat16)[1]["mse_loss"]
    assert float(far) == pytest.approx(float(near), rel=1e-2)


@pytest.mark.parametrize("k", [1, 3, 16, 64, F])
def test_the_strongest_are_those_of_topk(generator: torch.Generator, passes: Passes, k: int) -> None:
    pre, norms = torch.randn(N, F, generator=generator), torch.rand(F, generator=generator) + 0.5
    values, indices = (pre * norms).topk(k, -1)
    expected = torch.zeros_like(pre).scatter(-1, indices, pre.gather(-1, indices).relu())
    assert torch.equal(passes.strongest(pre, norms, k, None), expected)
    assert strongest_indices(pre * norms, k).sort().values.equal(indices.sort().values)
    assert values.shape == (N, k)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_of_equal_ones_no_more_than_k_are_chosen(passes: Passes, precision: torch.dtype) -> None:
    pre = torch.tensor([1.0, 2.0, -1.0, 2.0]).repeat(3, F // 4).to(precision)
    for allowed in (None, torch.ones(F, dtype=torch.bool)):
        chosen = passes.strongest(pre, torch.ones(F), 5, allowed)
        assert chosen.sum(-1).tolist() == [10.0] * 3


def test_only_allowed_ones_are_chosen_and_negative_ones_stay(passes: Passes) -> None:
    pre = -torch.arange(1.0, F + 1).repeat(2, 1)
    allowed = torch.zeros(F, dtype=torch.bool)
    allowed[[5, 9]] = True
    chosen = passes.strongest(pre, torch.ones(F), 4, allowed)
    assert chosen[0].nonzero().flatten().tolist() == [5, 9]
    assert chosen[1, [5, 9]].tolist() == [-6.0, -10.0]
    assert not passes.strongest(pre, torch.ones(F), 4, None).any()


def test_what_is_not_finite_ends(passes: Passes) -> None:
    pre = torch.randn(3, F)
    pre[0], pre[1, 3], pre[2, 4] = torch.nan, torch.inf, -torch.inf
    chosen = passes.strongest(pre, torch.ones(F), 4, None)
    assert chosen[1, 3] == torch.inf
    assert chosen[2].isfinite().all()


# Who compiles, and what happens where nobody can.


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    caches = (compiled, native.library)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    yield
    for cache in caches:
        cache.cache_clear()


def long_enough(**own: Any) -> SAEConfig:
    return SAEConfig(**{"expansion": 8, "steps": 2**19, "batch_size": 64, **own})


def trainer_for(config: SAEConfig) -> trainers.Trainer:
    return trainer_of([training_sae(config, D, 0, {})], config, CPU)


def test_long_trainings_are_compiled_and_short_ones_are_not() -> None:
    assert trainer_for(long_enough()).compiled
    assert not trainer_for(long_enough(steps=10)).compiled
    assert not trainer_for(long_enough(compile=False)).compiled
    assert trainer_for(long_enough(steps=10, compile=True)).compiled
    assert not trainer_for(long_enough(architecture="jumprelu")).compiled


@pytest.mark.usefixtures("without_compiler")
def test_without_a_compiler_it_is_said_and_done_without(caplog: pytest.LogCaptureFixture) -> None:
    assert not trainer_for(long_enough()).compiled
    (record,) = caplog.records
    assert "not compiled: none of g++" in record.getMessage()
    with pytest.raises(RequestError, match=r"^sae.compile=true: none of g\+\+"):
        try_options(long_enough(compile=True), D)


@pytest.mark.parametrize(
    "own",
    [
        {"architecture": "jumprelu"},
        {"options": {"lp_norm": 2.0}},
        {"options": {"normalize_activations": "layer_norm"}},
    ],
)
def test_what_has_no_passes_cannot_be_compiled(own: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"sae.compile=true: only the passes of standard, topk, gated"):
        try_options(long_enough(compile=True, **own), D)
    assert long_enough(**own).resolved(CPU).precision == "float32"
