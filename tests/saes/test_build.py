"""SAEs before their first step: seeds of their own, the L1 that the config names, and options that are checked."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens.saes.sae import TrainStepInput

from polymorph.cli import command
from polymorph.cli.config import TrainConfig, register
from polymorph.errors import RequestError
from polymorph.presets import CONF
from polymorph.saes.build import sae_seed, training_sae
from polymorph.saes.config import SAEConfig, SAEOptimizerConfig
from polymorph.saes.trained import Variant
from polymorph.saes.trainers import trainer_of

CPU = torch.device("cpu")
MEMBERS, SITES = (0, 1, 2, 100, 2**32 - 1), range(6)
register()


# Seeds.


def test_every_sae_has_a_seed_of_its_own() -> None:
    own: list[Variant] = ["distinct", "again"]
    found = [sae_seed(0, *key) for key in product(MEMBERS, SITES, own)]
    # Member 0 at site 0 must not have the shared seed either.
    found += [sae_seed(base, 0, 0, "shared") for base in range(5)]
    found += [sae_seed(1, *key) for key in product(MEMBERS, SITES, own)]
    assert len(set(found)) == len(found)
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in found)


def test_shared_seeds_are_shared() -> None:
    shared: list[Variant] = ["shared", "unrelated"]
    assert len({sae_seed(3, *key) for key in product(MEMBERS, SITES, shared)}) == 1
    assert sae_seed(3, 0, 0, "shared") != sae_seed(4, 0, 0, "shared")


def test_seeds_are_what_they_were() -> None:
    """They are part of what is published."""
    assert sae_seed(0, 0, 0, "distinct") == 2968811710
    assert sae_seed(0, 1, 2, "again") == 462622800
    assert sae_seed(0, 1, 2, "shared") == 1201711368


def weights(config: SAEConfig, seed: int) -> dict[str, torch.Tensor]:
    return training_sae(config, 8, seed, {}).state_dict()


@pytest.mark.parametrize("architecture", ["standard", "topk", "gated", "jumprelu", "batchtopk"])
def test_weights_are_a_function_of_the_seed(architecture: str) -> None:
    config = SAEConfig(architecture=architecture, expansion=2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = weights(config, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    other, third = weights(config, 5), weights(config, 6)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["W_dec"], third["W_dec"])


def test_what_is_known_of_it_is_noted() -> None:
    sae = training_sae(SAEConfig(expansion=3), 8, 5, {"hook_name": "here", "model_name": "a/seed-0001"})
    notes = sae.cfg.metadata
    assert (notes.sae_seed, notes.hook_name, notes.model_name) == (5, "here", "a/seed-0001")
    assert (sae.cfg.d_in, sae.cfg.d_sae, sae.cfg.dtype) == (8, 24, "float32")
    assert {p.dtype for p in sae.parameters()} == {torch.float32}


# The coefficient of L1.


@pytest.mark.parametrize("d", [4, 16])
@pytest.mark.parametrize("architecture", ["standard", "gated"])
def test_l1_per_dimension_is_the_loss_with_a_mean_over_dimensions(
    generator: torch.Generator, architecture: str, d: int
) -> None:
    """Up to the factor d, which is the same in every term, and so in every gradient."""
    coefficient = 0.7
    config = SAEConfig(architecture=architecture, expansion=2, l1_per_dimension=coefficient)
    sae = training_sae(config, d, 0, {})
    x = torch.randn(50, d, generator=generator)
    coefficients: dict[str, Any] = {name: value.value for name, value in sae.get_coefficients().items()}  # type: ignore[union-attr]
    out = sae.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients=coefficients,
            dead_neuron_mask=None,
            n_training_steps=0,
            is_logging_step=False,
        )
    )
    acts, _ = sae.encode_with_hidden_pre(x)
    if architecture == "gated":
        acts = ((x - sae.b_dec * sae.cfg.apply_b_dec_to_input) @ sae.W_enc + sae.b_gate).relu()
    sparsity = (acts * sae.W_dec.norm(dim=1)).sum(-1).mean()
    explicit = (out.sae_out - x).square().mean() + coefficient * sparsity
    if architecture == "gated":
        explicit = explicit + (acts @ sae.W_dec + sae.b_dec - x).square().mean()
    torch.testing.assert_close(out.loss, d * explicit)
    assert sparsity > 0


def test_without_it_the_coefficient_is_saelens_own() -> None:
    sae = training_sae(SAEConfig(expansion=2, options={"l1_coefficient": 0.7}), 4, 0, {})
    assert sae.cfg.l1_coefficient == 0.7
    both = SAEConfig(expansion=2, options={"l1_coefficient": 0.7}, l1_per_dimension=0.2)
    assert training_sae(both, 4, 0, {}).cfg.l1_coefficient == pytest.approx(0.8)
    assert both.options == {"l1_coefficient": 0.7}  # the config itself is left as it is


# Configs.

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an architecture": (
        {"architecture": "standrad"},
        r"sae.architecture='standrad' \(did you mean 'standard'",
    ),
    "an option": ({"options": {"l1_coeficient": 1}}, r"no such option \(did you mean 'l1_coefficient'"),
    "another's option": ({"options": {"k": 4}}, r"sae.options.k: standard has no such option"),
    "sparse activations": (
        {"architecture": "topk", "options": {"use_sparse_activations": True}},
        "use_sparse_activations.*leave it off",
    ),
    "d_in": ({"options": {"d_in": 4}}, r"sae.options.d_in: it follows from the cohort"),
    "d_sae": ({"options": {"d_sae": 4}}, r"sae.options.d_sae: it follows"),
    "dtype": ({"options": {"dtype": "float64"}}, r"sae.options.dtype: it follows"),
    "no variants": ({"variants": []}, "sae.variants=.*at least one"),
    "a variant twice": ({"variants": ["shared", "shared"]}, "sae.variants=.*different ones"),
    "a variant": ({"variants": ["distict"]}, "did you mean 'distinct'"),
    "the variant of another command": (
        {"variants": ["attached"]},
        "one of distinct, shared, again, unrelated",
    ),
    "L1 for topk": ({"architecture": "topk", "l1_per_dimension": 1e-3}, "topk has no l1_coefficient"),
    "a seed": ({"seed": -1}, "sae.seed=-1: from 0"),
    "a seed of the data": ({"data_seed": 2**32}, "sae.data_seed=4294967296: from 0"),
    "no steps": ({"steps": 0}, "sae.steps=0: at least 1"),
    "one token": ({"batch_size": 1}, "sae.batch_size=1: at least 2"),
    "no features": ({"expansion": 0}, "sae.expansion=0: at least 1"),
    "no threads": ({"threads": 0}, "sae.threads=0: at least 1, or null"),
    "a norm that revival does not bear": (
        {"architecture": "topk", "options": {"normalize_activations": "layer_norm"}},
        "cannot revive dead features",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_config_is_refused(what: str) -> None:
    keys, message = WRONG[what]
    with pytest.raises(ValueError, match=message):
        SAEConfig(**keys)


RATES: dict[str, tuple[dict[str, Any], str]] = {
    "a rate": ({"lr": 0.0}, "sae.optimizer.lr=0.0: above 0"),
    "a last rate": ({"lr_end": -1.0}, "sae.optimizer.lr_end=-1.0: at least 0"),
    "a beta": ({"adam_beta1": 1.0}, "sae.optimizer.adam_beta1=1.0: from 0"),
    "a schedule": ({"lr_scheduler_name": "cosine"}, "one of constant, cosineannealing"),
    "a warm-up": ({"lr_warm_up_steps": -1}, "sae.optimizer.lr_warm_up_steps=-1: at least 0"),
    "no time for a cosine": (
        {"lr_scheduler_name": "cosineannealing", "lr_warm_up_steps": 6, "lr_decay_steps": 4},
        "sae.steps=10: at least 1 beside",
    ),
    "too many restarts": (
        {"lr_scheduler_name": "cosineannealingwarmrestarts", "n_restart_cycles": 11},
        "sae.steps=10: at least 11 beside",
    ),
    "a decay from nothing": (
        {"lr_scheduler_name": "cosineannealing", "lr_end": 0.0, "lr_decay_steps": 2},
        "sae.optimizer.lr_end=0.0: above 0",
    ),
}


@pytest.mark.parametrize("what", RATES)
def test_a_wrong_schedule_is_refused(what: str) -> None:
    keys, message = RATES[what]
    with pytest.raises(ValueError, match=message):
        SAEConfig(steps=10, optimizer=SAEOptimizerConfig(**keys))


@pytest.mark.parametrize("name", ["constant", "cosineannealing", "cosineannealingwarmrestarts"])
def test_the_shortest_schedules_run(name: str) -> None:
    cycles = 2 if name.endswith("restarts") else 1
    optimizer = SAEOptimizerConfig(
        lr_scheduler_name=name, lr_warm_up_steps=2, lr_decay_steps=2, n_restart_cycles=cycles
    )
    config = SAEConfig(expansion=1, steps=4 + cycles, batch_size=8, optimizer=optimizer)
    trainer = trainer_of([training_sae(config, 4, 0, {})], config, CPU)
    for _ in range(config.steps):
        trainer.step(torch.ones(1, 8, 4))


def test_only_what_decides_the_weights_makes_another_sae() -> None:
    one = SAEConfig(options={"l1_coefficient": 0.5}).deciding()
    for same in (
        {"threads": 2},
        {"log_every": 7},
        {"members": [0]},
        {"sites": ["here"]},
        {"at": "all"},
        {"variants": ["again"]},
        {"family": "other"},
        {"online_steps": 3},
        {"compile": True},
    ):
        assert SAEConfig(options={"l1_coefficient": 0.5}, **same).deciding() == one
    for other in (
        {"options": {}},
        {"steps": 7},
        {"batch_size": 7},
        {"expansion": 7},
        {"data_seed": 7},
        {"unit_norm_decoder": True},
        {"l1_per_dimension": 0.1},
        {"dead_feature_window": 7},
        {"precision": "bfloat16"},
        {"optimizer": SAEOptimizerConfig(adam_beta2=0.5)},
    ):
        assert SAEConfig(**{"options": {"l1_coefficient": 0.5}, **other}).deciding() != one


# Presets.

PRESETS = sorted(path.stem for path in Path(CONF, "sae").glob("*.yaml"))


def test_the_presets_are_found() -> None:
    assert {"quick", "paper_x8", "standard_x8", "topk_x8", "gated_x8", "jumprelu_x8", "batchtopk_x8"} <= set(
        PRESETS
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_composes_and_trains(generator: torch.Generator, name: str) -> None:
    jobs = command.requests("train", TrainConfig, ["stage=sae", f"sae={name}"])
    assert jobs is not None
    config = jobs[0].sae
    assert config.family == name
    if name.rpartition("_x")[1]:
        assert config.expansion == int(name.rpartition("_x")[2])
        assert name.startswith((config.architecture, "paper"))
    trainer = trainer_of([training_sae(config, 16, 0, {})], config, CPU)
    x = torch.randn(1, 64, 16, generator=generator)
    first, second = trainer.step(x), trainer.step(x)
    assert first["mse_loss"] > second["mse_loss"] > 0
    assert 0 < float(first["l0"]) <= config.expansion * 16
    if config.unit_norm_decoder:
        norms = trainer.finish()[0].W_dec.norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-6)


def test_presets_that_state_the_same_differ_in_width_alone() -> None:
    found = {}
    for name in [f"{kind}_x{width}" for kind in ("paper", "standard", "topk") for width in (8, 32)]:
        jobs = command.requests("train", TrainConfig, [f"sae={name}"])
        assert jobs is not None
        found[name] = jobs[0].sae.deciding()
    for kind in ("paper", "standard", "topk"):
        assert {**found[f"{kind}_x8"], "expansion": 32} == found[f"{kind}_x32"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sae=standrad_x8", "standard_x8"),
        ("sae.stepz=3", "sae.steps"),
        ("sae.steps=1.5", "steps"),
        ("+sae.options.k=4", "sae.options.k: standard has no such option"),
        ("sae.variants=[[a]]", "variants|unhashable"),
        ("sae.optimizer.lr=nan", "lr"),
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        command.requests("train", TrainConfig, [override])
