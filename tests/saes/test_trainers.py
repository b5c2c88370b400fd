"""SAEs trained side by side are those that SAELens' own trainers make, each as if it were alone."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from sae_lens import TrainingSAE
from sae_lens.training.multi_sae_trainer import MultiSAETrainer
from torch import Tensor, nn

from polymorph.errors import RequestError
from polymorph.saes import stacked, trainers
from polymorph.saes.build import training_sae
from polymorph.saes.config import SAEConfig, SAEOptimizerConfig
from polymorph.saes.module import Measured, SAEModule
from polymorph.saes.trainers import (
    LoopedTrainer,
    StackedTrainer,
    trainer_of,
    training_bytes,
    try_options,
)

D, EXPANSION, BATCH, STEPS, ESTIMATES = 8, 3, 64, 50, 4
FEW = 20  # steps, where nothing is compared with SAELens
SAES = 3
CPU = torch.device("cpu")
LOSSES = {"rtol": 1e-4, "atol": 0.0}  # 2e-7 is met, and 1e-5 by the gated, whose gates are steps
# Of weights of about 0.1 to 1, after 50 steps of Adam of 0.01. Adam turns the rounding of a gradient near 0 into a
# whole step; whitening folds into weights of up to 2.
WEIGHTS = {"rtol": 3e-3, "atol": 1e-4}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def batches(generator: torch.Generator) -> list[Tensor]:
    """As many as the estimates and the steps need, of another law for each SAE, none with mean 0."""
    mixing = torch.randn(SAES, D, D, generator=generator)
    offset = torch.randn(SAES, 1, D, generator=generator)
    return [
        0.3 * torch.randn(SAES, BATCH, D, generator=generator) @ mixing + offset
        for _ in range(ESTIMATES + STEPS)
    ]


def config_of(architecture: str, /, **own: Any) -> SAEConfig:
    """A config whose options are those that are not keys of its own."""
    keys = {key: own.pop(key) for key in list(own) if key in SAEConfig.__dataclass_fields__}
    keys.setdefault("optimizer", SAEOptimizerConfig(lr=1e-2))
    keys.setdefault("steps", STEPS)
    keys.setdefault("precision", "float32")
    return SAEConfig(
        architecture=architecture,
        expansion=EXPANSION,
        options=own,
        batch_size=BATCH,
        n_batches_for_norm_estimate=ESTIMATES,
        **keys,
    )


def made(config: SAEConfig, seeds: Iterable[int] = range(SAES)) -> list[TrainingSAE[Any]]:
    return [training_sae(config, D, seed, {"hook_name": "here"}) for seed in seeds]


Trained = tuple[list[Measured], list[TrainingSAE[Any]]]


def train(trainer: trainers.Trainer, config: SAEConfig, batches: Sequence[Tensor]) -> Trained:
    """With the first batches for the estimates, if there are any, as SAELens does it."""
    left = iter(batches)
    trainer.prepare(left)
    return [trainer.step(next(left)) for _ in range(config.steps)], trainer.finish()


def ours(config: SAEConfig, batches: Sequence[Tensor]) -> Trained:
    return train(trainer_of(made(config), config, CPU), config, batches)


def theirs(config: SAEConfig, batches: Sequence[Tensor]) -> Trained:
    """What `MultiSAETrainer.fit` makes of the same SAEs; of every step the losses and the rate of learning."""
    saes = {str(index): sae for index, sae in enumerate(made(config))}
    stream = ({name: batch[int(name)] for name in saes} for batch in batches)
    multi = MultiSAETrainer(config.trainer("cpu"), saes, {name: name for name in saes}, stream)
    seen: dict[str, list[Measured]] = {name: [] for name in saes}
    for name, trainer in multi.trainers.items():

        def step(batch: Tensor, name: str = name, original: Callable[..., Any] = trainer.step) -> Any:
            out = original(batch)
            seen[name].append({"loss": out.loss.detach(), **{k: v.detach() for k, v in out.losses.items()}})
            return out

        trainer.step = step  # type: ignore[method-assign]
    finished = multi.fit()
    each = zip(*seen.values(), strict=True)
    return [{key: torch.stack([own[key] for own in step]) for key in step[0]} for step in each], [
        finished[name] for name in saes
    ]


def component(measured: Sequence[Measured], name: str = "loss") -> Tensor:
    """[steps, saes]"""
    return torch.stack([step[name] for step in measured])


def check_close(one: Trained, other: Trained) -> None:
    """Every component of the losses, the weights, and what is noted of the SAEs."""
    for name in other[0][0]:
        torch.testing.assert_close(component(one[0], name), component(other[0], name), **LOSSES)
    for mine, reference in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(mine.state_dict(), reference.state_dict(), **WEIGHTS)
        notes, expected = mine.cfg.metadata, reference.cfg.metadata
        assert notes.l0 == pytest.approx(expected.l0, rel=1e-3)
        assert notes.num_dead_features == expected.num_dead_features
        own, right = mine.cfg.to_dict(), reference.cfg.to_dict()
        assert {**own, "metadata": None} == {**right, "metadata": None}


def check_equal(one: Trained, other: Trained, *saes: int) -> None:
    """Bit for bit, of these SAEs of both."""
    for index in saes or range(len(one[1])):
        assert torch.equal(component(one[0])[:, index], component(other[0])[:, index])
        assert equal_weights(one[1][index], other[1][index])


def equal_weights(one: nn.Module, other: nn.Module) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)


DYING: dict[str, Any] = {"k": 2, "dead_feature_window": 3, "feature_sampling_window": 20}
STACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "standard": ("standard", {"l1_coefficient": 0.3, "l1_warm_up_steps": 20, "feature_sampling_window": 20}),
    "standard, another norm": ("standard", {"l1_coefficient": 0.3, "lp_norm": 2.0}),
    "topk": ("topk", DYING),
    "topk, not rescaled": ("topk", {**DYING, "rescale_acts_by_decoder_norm": False}),
    "gated": ("gated", {"l1_coefficient": 0.3, "l1_warm_up_steps": 10}),
}
NORMS = ("none", "expected_average_only_in", "covariance_whitening")


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        (name, norm)
        for name in STACKED
        for norm in (NORMS if name in ("standard", "topk", "gated") else NORMS[:1])
    ],
)
def test_a_stack_makes_the_saes_of_saelens(batches: list[Tensor], name: str, norm: str) -> None:
    architecture, options = STACKED[name]
    config = config_of(architecture, **options, normalize_activations=norm)
    mine = ours(config, batches)
    check_close(mine, theirs(config, batches))
    if architecture == "topk":
        revival = component(mine[0], "auxiliary_reconstruction_loss")
        assert (revival[10:] > 0).any(), "no feature was dead"
        assert (revival[:3] == 0).all(), "dead before the window"


# Of products that round to 1/256: a small bias of the losses, and tokens whose last choice rounding decides.
LOW = {"standard": 0.02, "gated": 0.02, "topk": 0.05}


@pytest.mark.parametrize("name", LOW)
@pytest.mark.parametrize("compile", [True, False])
def test_in_bfloat16_the_losses_are_near_those_of_saelens(
    batches: list[Tensor], name: str, compile: bool
) -> None:
    config = config_of(STACKED[name][0], **STACKED[name][1])
    low = replace(config, precision="bfloat16", compile=compile)
    mine, reference = component(ours(low, batches)[0]), component(theirs(config, batches)[0])
    differences = (mine / reference - 1).abs()
    assert differences.mean() < LOW[name]
    assert differences.max() > 1e-6, "products were not of bfloat16"


@pytest.mark.parametrize("name", LOW)
def test_compiled_in_float32_it_makes_the_saes_of_saelens(batches: list[Tensor], name: str) -> None:
    config = config_of(STACKED[name][0], **STACKED[name][1], compile=True)
    check_close(ours(config, batches), theirs(replace(config, compile=False), batches))


@pytest.mark.parametrize("name", LOW)
def test_compiled_in_bfloat16_neither_workers_nor_others_change_a_bit(
    batches: list[Tensor], name: str
) -> None:
    config = config_of(STACKED[name][0], **STACKED[name][1], compile=True, precision="bfloat16", steps=FEW)
    together = with_workers(config, batches, 2)
    check_equal(with_workers(config, batches, 1), together)
    alone = train(trainer_of(made(config, [1]), config, CPU), config, [b[1:2] for b in batches])
    assert equal_weights(alone[1][0], together[1][1])


SCHEDULES = {
    "warm-up and decay": SAEOptimizerConfig(lr=1e-2, lr_warm_up_steps=10, lr_decay_steps=10),
    "a cosine": SAEOptimizerConfig(
        lr=1e-2,
        lr_scheduler_name="cosineannealing",
        lr_warm_up_steps=5,
        lr_decay_steps=5,
        lr_end=3e-3,
        adam_beta1=0.0,
        adam_beta2=0.99,
    ),
    "restarts": SAEOptimizerConfig(
        lr=1e-2, lr_scheduler_name="cosineannealingwarmrestarts", n_restart_cycles=2
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_saelens(batches: list[Tensor], name: str) -> None:
    config = config_of("standard", l1_coefficient=0.3, optimizer=SCHEDULES[name])
    mine = ours(config, batches)
    check_close(mine, theirs(config, batches))
    constant = ours(config_of("standard", l1_coefficient=0.3), batches)
    assert not torch.allclose(component(mine[0])[-1], component(constant[0])[-1], rtol=1e-3)


LOOPED: dict[str, tuple[str, dict[str, Any]]] = {
    "jumprelu": ("jumprelu", {"l0_coefficient": 0.3}),
    "batchtopk": ("batchtopk", DYING),
    "batchtopk, scaled": ("batchtopk", {**DYING, "normalize_activations": "expected_average_only_in"}),
    "jumprelu, whitened": ("jumprelu", {"normalize_activations": "covariance_whitening"}),
}


@pytest.mark.parametrize("name", LOOPED)
def test_a_loop_is_saelens_to_the_bit(batches: list[Tensor], name: str) -> None:
    architecture, options = LOOPED[name]
    config = config_of(architecture, **options)
    assert isinstance(trainer_of(made(config), config, CPU), LoopedTrainer)
    mine, reference = ours(config, batches), theirs(config, batches)
    check_equal(mine, reference)
    check_close(mine, reference)


@pytest.mark.parametrize("architecture", ["abstopk", "matching_pursuit", "matryoshka_batchtopk"])
def test_whatever_else_saelens_trains_is_trained(batches: list[Tensor], architecture: str) -> None:
    options: dict[str, Any] = {} if architecture == "matching_pursuit" else {"k": 3}
    if architecture == "matryoshka_batchtopk":
        options["matryoshka_widths"] = [6, D * EXPANSION]
    config = config_of(architecture, **options)
    trainer = trainer_of(made(config), config, CPU)
    module = SAEModule(trainer, lambda step: batches[step], 3, 1, lambda step, measured: None)
    for step in range(3):
        module.training_step(batches[step], step)
        assert all(value.shape == (SAES,) for value in module.latest.values())
        assert module.latest["explained_variance"].isfinite().all()


# Members.


def with_workers(config: SAEConfig, batches: Sequence[Tensor], workers: int) -> Trained:
    return train(trainer_of(made(config), replace(config, threads=workers), CPU), config, batches)


@pytest.mark.parametrize("name", ["standard", "topk", pytest.param("gated", marks=pytest.mark.slow)])
def test_the_number_of_workers_changes_no_bit(batches: list[Tensor], name: str) -> None:
    config = config_of(STACKED[name][0], **STACKED[name][1], steps=FEW)
    check_equal(with_workers(config, batches, 1), with_workers(config, batches, 2))


@pytest.mark.parametrize("name", ["standard", "topk", pytest.param("gated", marks=pytest.mark.slow)])
def test_an_sae_alone_is_the_same_sae(batches: list[Tensor], name: str) -> None:
    config = config_of(STACKED[name][0], **STACKED[name][1], steps=FEW)
    together = ours(config, batches)
    for index in range(SAES):
        alone = train(
            trainer_of(made(config, [index]), config, CPU), config, [b[index : index + 1] for b in batches]
        )
        assert torch.equal(component(alone[0])[:, 0], component(together[0])[:, index])
        assert equal_weights(alone[1][0], together[1][index])


def as_one_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator."""
    monkeypatch.setattr(stacked, "sizes", lambda saes, d_sae, batch, device: (saes, batch))


@pytest.mark.parametrize("name", ["standard", "topk", pytest.param("gated", marks=pytest.mark.slow)])
def test_one_stack_of_all_is_the_same_to_rounding(
    batches: list[Tensor], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = config_of(STACKED[name][0], **STACKED[name][1], steps=FEW)
    apart = ours(config, batches)
    as_one_stack(monkeypatch)
    trainer = trainer_of(made(config), config, CPU)
    assert isinstance(trainer, StackedTrainer)
    assert [stack.size for stack in trainer.stacks] == [SAES]
    check_close(train(trainer, config, batches), apart)


@pytest.mark.parametrize("name", ["standard", "topk", pytest.param("gated", marks=pytest.mark.slow)])
def test_a_batch_in_parts_is_the_batch_to_rounding(
    batches: list[Tensor], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = config_of(STACKED[name][0], **STACKED[name][1], steps=FEW)
    whole = ours(config, batches)
    monkeypatch.setattr(stacked, "CACHED", 1)
    monkeypatch.setattr(stacked, "LEAST_TOKENS", 20)  # three parts, and one of four tokens
    trainer = trainer_of(made(config), config, CPU)
    assert isinstance(trainer, StackedTrainer)
    assert trainer.tokens == 20
    check_close(train(trainer, config, batches), whole)


@pytest.mark.parametrize("one_stack", [False, True])
def test_the_scale_of_one_does_not_reach_another(
    batches: list[Tensor], monkeypatch: pytest.MonkeyPatch, one_stack: bool
) -> None:
    config = config_of("standard", l1_coefficient=0.3, steps=FEW)
    before = ours(config, batches)
    if one_stack:
        as_one_stack(monkeypatch)
        before = ours(config, batches)
    loud = [batch * torch.tensor([1.0, 1.0, 1e3]).view(-1, 1, 1) for batch in batches]
    check_equal(ours(config, loud), before, 0, 1)


def test_a_clip_over_the_whole_stack_would(batches: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("standard", l1_coefficient=0.3, steps=FEW)
    before = ours(config, batches)
    as_one_stack(monkeypatch)
    monkeypatch.setattr(
        stacked, "clip_members", lambda own, largest, members: nn.utils.clip_grad_norm_(list(own), largest)
    )
    loud = [
        batch * torch.tensor([1.0, 1.0, 1e3 if step % 2 else 1.0]).view(-1, 1, 1)
        for step, batch in enumerate(batches)
    ]
    coupled = ours(config, loud)
    assert not torch.allclose(component(coupled[0])[:, :2], component(before[0])[:, :2], rtol=1e-2)


def test_one_that_is_no_longer_finite_leaves_the_others_alone(
    batches: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("topk", **DYING, steps=FEW)
    as_one_stack(monkeypatch)
    before = ours(config, batches)
    broken = [batch.clone() for batch in batches]
    broken[10][2] = torch.nan
    after = ours(config, broken)
    check_equal(after, before, 0, 1)
    assert not component(after[0])[-1, 2].isfinite()


def test_the_same_seeds_make_the_same_saes(batches: list[Tensor]) -> None:
    config = config_of("standard", l1_coefficient=0.3, steps=FEW)
    check_equal(ours(config, batches), ours(config, batches))
    assert not equal_weights(*made(config, [0, 1]))


def test_no_global_randomness_is_drawn(batches: list[Tensor]) -> None:
    before = torch.get_rng_state()
    for architecture, options in (STACKED["topk"], LOOPED["jumprelu"]):
        config = config_of(architecture, **options, steps=FEW)
        ours(config, batches)
    assert torch.equal(torch.get_rng_state(), before)


# What they have beyond SAELens, and what they would be without it.


def test_without_the_revival_loss_topk_is_another(
    batches: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("topk", **DYING)
    revived = ours(config, batches)
    off = ours(config_of("topk", **DYING, aux_loss_coefficient=0.0), batches)
    monkeypatch.setattr(
        stacked.StackedTrainer, "dead", property(lambda own: torch.zeros(SAES, D * EXPANSION) > 0)
    )
    without = ours(config, batches)
    torch.testing.assert_close(component(off[0]), component(without[0]), **LOSSES)
    assert not torch.allclose(component(without[0], "mse_loss"), component(revived[0], "mse_loss"), rtol=1e-2)
    fired = [sum(sae.cfg.metadata.l0 > 0 for sae in found[1]) for found in (revived, without)]
    assert fired == [SAES, SAES]


@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
def test_decoders_of_unit_norm_stay_so(batches: list[Tensor], architecture: str) -> None:
    def norms(unit: bool) -> Tensor:
        config = config_of(architecture, decoder_init_norm=1.0, unit_norm_decoder=unit)
        return torch.stack([sae.W_dec.norm(dim=-1) for sae in ours(config, batches)[1]])

    torch.testing.assert_close(norms(True), torch.ones(SAES, EXPANSION * D), rtol=0, atol=1e-6)
    assert (norms(False) - 1).abs().max() > 1e-2


@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
@pytest.mark.parametrize("norm", NORMS)
def test_the_explained_variance_is_that_of_what_the_sae_sees(
    batches: list[Tensor], architecture: str, norm: str
) -> None:
    config = config_of(
        architecture, normalize_activations=norm, decoder_init_norm=1.0, optimizer=SAEOptimizerConfig(lr=1e-9)
    )
    seen: list[Measured] = []
    trainer = trainer_of(made(config), config, CPU)
    trainer.prepare(iter(batches))
    SAEModule(trainer, batches.__getitem__, 1, 1, lambda step, own: seen.append(own)).training_step(
        batches[-1], 0
    )
    x = trainer.scaled(batches[-1])
    mean_square = (x - x.mean(1, keepdim=True)).square().sum(-1).mean(-1)
    expected = 1 - seen[0]["mse_loss"] / mean_square
    torch.testing.assert_close(seen[0]["explained_variance"], expected)
    for index, sae in enumerate(trainer.finish()):  # folded: it takes activations as they are
        out = sae(batches[-1][index])
        if norm == "covariance_whitening":
            out = trainer.scaled(out.expand(SAES, -1, -1))[index]
        else:
            out = out * (x[index].norm() / batches[-1][index].norm())
        error = (out - x[index]).square().sum(-1).mean()
        assert float(1 - error / mean_square[index]) == pytest.approx(float(expected[index]), abs=1e-4)


def test_l0_and_live_fraction_are_counted(batches: list[Tensor]) -> None:
    """Of every trainer alike."""
    for name, k in (("topk", 2), ("batchtopk", 2)):
        measured, _ = ours(config_of(name, **{**DYING, "k": k}), batches)
        assert component(measured, "l0").mean() == pytest.approx(k, rel=0.05)
        live = component(measured, "live_fraction")
        assert (live[:3] == 1).all()
        assert (live[-1] < 1).any()
        assert (live > 0).all()


def test_memory_grows_with_what_is_kept() -> None:
    plain = config_of("standard")
    estimated = config_of("standard", normalize_activations="covariance_whitening")
    gpu = torch.device("cuda")
    assert training_bytes(6, D, plain, CPU) > training_bytes(3, D, plain, CPU)
    assert training_bytes(3, D, plain, gpu) > training_bytes(3, D, plain, CPU)
    assert training_bytes(3, D, estimated, CPU) - training_bytes(3, D, plain, CPU) == (
        4 * (ESTIMATES - 3) * SAES * BATCH * D
    )


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("topk", {"k": 25}),
        ("topk", {"k": "many"}),
        ("standard", {"normalize_activations": "perhaps"}),
        ("standard", {"l1_coefficient": "much"}),
        ("matryoshka_batchtopk", {"k": 2, "matryoshka_widths": [500]}),
    ],
)
def test_options_that_cannot_be_trained_are_refused(architecture: str, options: dict[str, Any]) -> None:
    with pytest.raises(
        RequestError, match=f"sae.options: {architecture} of 24 features .*{next(iter(options))}"
    ):
        try_options(config_of(architecture, **options), D)


@pytest.mark.parametrize("name", [*STACKED, *LOOPED])
def test_options_that_can_be_are_not(name: str) -> None:
    architecture, options = (STACKED | LOOPED)[name]
    before = torch.get_rng_state()
    try_options(config_of(architecture, **options), D)
    assert torch.equal(torch.get_rng_state(), before)
