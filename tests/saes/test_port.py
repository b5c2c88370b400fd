"""An SAE with a map folded in computes what the SAE computes behind the map."""

import copy
from typing import Any

import pytest
import torch
from sae_lens import SAE, StandardSAE
from sae_lens.registry import SAE_CLASS_REGISTRY, get_sae_class, get_sae_training_class
from torch import Tensor

from polymorph.alignment.maps import Map, stacked
from polymorph.alignment.moments import explained_variance
from polymorph.saes.port import EXACT, exact_for, port_sae

D, FEATURES, TOKENS = 8, 24, 300
EXACTLY = {"rtol": 1e-10, "atol": 1e-10}  # 3e-13 is met, at conditions up to 1e3

RESCALED = {"k": 4, "rescale_acts_by_decoder_norm": True}
UNTIED: dict[str, tuple[str, dict[str, Any]]] = {
    "standard": ("standard", {}),
    "gated": ("gated", {}),
    "topk": ("topk", {"k": 4}),
    "topk_rescaled": ("topk", RESCALED),
    "abstopk": ("abstopk", {"k": 4}),
    "abstopk_rescaled": ("abstopk", RESCALED),
    "jumprelu": ("jumprelu", {}),
}


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def haar(generator: torch.Generator, d: int) -> Tensor:
    return torch.linalg.qr(normal(generator, d, d)).Q


def activations(generator: torch.Generator, n: int = TOKENS, d: int = D) -> Tensor:
    return normal(generator, n, d) * torch.linspace(0.5, 2.0, d, dtype=torch.float64) + normal(generator, d)


def fill(sae: SAE[Any], generator: torch.Generator) -> SAE[Any]:
    """Weights with which no bias and no norm is neutral, and between 2 % and 90 % of the activations nonzero."""
    d, features = sae.cfg.d_in, sae.cfg.d_sae
    rows = normal(generator, features, d)
    rows = rows / rows.norm(dim=-1, keepdim=True)
    norms = torch.linspace(0.5, 2.0, features, dtype=torch.float64)[
        torch.randperm(features, generator=generator)
    ]
    planted = {
        "W_enc": (rows + 0.1 * normal(generator, features, d)).mT,
        "W_dec": rows * norms.unsqueeze(-1),
        "b_dec": normal(generator, d),
        "b_enc": 0.3 * normal(generator, features) - 0.5,
        "b_gate": 0.3 * normal(generator, features) - 0.5,
        "b_mag": 0.3 * normal(generator, features),
        "r_mag": 0.3 * normal(generator, features),
        "threshold": torch.rand(features, generator=generator, dtype=torch.float64),
    }
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(planted[name])
    return sae.eval()


def make(
    generator: torch.Generator,
    architecture: str,
    dtype: str = "float64",
    d: int = D,
    features: int = FEATURES,
    **more,
) -> SAE[Any]:
    sae_class, config = get_sae_class(architecture)
    return fill(sae_class(config(d_in=d, d_sae=features, dtype=dtype, **more)), generator)


def conditioned(generator: torch.Generator, d: int, condition: float) -> Tensor:
    values = torch.logspace(0, torch.tensor(condition).log10().item(), d, dtype=torch.float64)
    return haar(generator, d) * (values / condition**0.5) @ haar(generator, d)


def make_map(name: str, weight: Tensor, generator: torch.Generator) -> Map:
    return Map(name, weight, normal(generator, weight.shape[0]), normal(generator, weight.shape[1]))


def isometry(generator: torch.Generator, d: int = D) -> Map:
    return make_map("orthogonal", haar(generator, d), generator)


def affine(generator: torch.Generator, condition: float = 9.0, d: int = D) -> Map:
    return make_map("affine", conditioned(generator, d, condition), generator)


def maps_between(kind: str, generator: torch.Generator) -> tuple[Map, Map | None]:
    """`there` and `back` (None for the inverse)."""
    if kind == "reduced_rank":
        basis = haar(generator, D)[:, :3]
        return make_map(kind, basis @ basis.mT @ normal(generator, D, D), generator), affine(generator)
    if kind == "wider":
        there = make_map("affine", normal(generator, D + 3, D), generator)
        return there, make_map("affine", normal(generator, D, D + 3), generator)
    if kind == "similarity":
        return make_map(kind, 1.7 * haar(generator, D), generator), None
    if kind == "orthogonal":
        return isometry(generator), None
    return affine(generator, float(kind.removeprefix("affine_"))), None


def check_port(sae: SAE[Any], there: Map, back: Map | None, generator: torch.Generator) -> SAE[Any]:
    ported = port_sae(sae, there, back)
    x = activations(generator, d=there.weight.shape[0])
    back = there.inv if back is None else back
    with torch.no_grad():
        f = sae.encode(there(x))
        assert 0.02 < float((f != 0).double().mean()) < 0.9
        torch.testing.assert_close(ported.encode(x), f, **EXACTLY)
        torch.testing.assert_close(ported.decode(f), back(sae.decode(f)), **EXACTLY)
        torch.testing.assert_close(ported(x), back(sae(there(x))), **EXACTLY)
    assert type(ported) is type(sae)
    return ported


@pytest.mark.parametrize("apply_b_dec", [True, False])
@pytest.mark.parametrize(
    "kind", ["orthogonal", "similarity", "affine_9", "affine_1000", "reduced_rank", "wider"]
)
@pytest.mark.parametrize("which", UNTIED)
def test_the_ported_sae_is_the_sae_behind_the_map(which, kind, apply_b_dec, generator):
    architecture, more = UNTIED[which]
    sae = make(generator, architecture, apply_b_dec_to_input=apply_b_dec, **more)
    check_port(sae, *maps_between(kind, generator), generator)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_what_batchtopk_is_saved_as_is_ported(architecture, generator, tmp_path):
    training_class, config = get_sae_training_class(architecture)
    more = {"matryoshka_widths": [8, FEATURES]} if architecture.startswith("matryoshka") else {}
    training = fill(training_class(config(d_in=D, d_sae=FEATURES, dtype="float64", k=4, **more)), generator)
    training.topk_threshold.fill_(0.8)
    training.save_inference_model(tmp_path)
    sae = SAE.load_from_disk(tmp_path)
    assert sae.cfg.architecture() == "jumprelu"
    check_port(sae, affine(generator), None, generator)


def naive(sae: SAE[Any], there: Map, **kept: Tensor) -> SAE[Any]:
    """A fold of weights alone, in which `kept` replaces what the right one has."""
    wrong = port_sae(sae, there)
    for name, values in kept.items():
        wrong.get_parameter(name).data = values.detach().clone()
    return wrong


@pytest.mark.parametrize(("which", "bias"), [("standard", "b_enc"), ("gated", "b_gate"), ("gated", "b_mag")])
def test_a_fold_that_forgets_a_bias_of_the_encoder_differs(which, bias, generator):
    """The opposite: the data and weights tell the right fold from a wrong one."""
    sae, there, x = make(generator, which), isometry(generator), activations(generator)
    wrong = naive(sae, there, **{bias: sae.get_parameter(bias)})
    assert (wrong.encode(x) - sae.encode(there(x))).abs().max() > 0.1


def test_a_fold_that_leaves_the_bias_of_the_decoder_differs(generator):
    sae, there = make(generator, "standard"), isometry(generator)
    f = sae.encode(activations(generator))
    wrong = naive(sae, there, b_dec=sae.b_dec)
    assert (wrong.decode(f) - there.inv(sae.decode(f))).abs().max() > 0.1


@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
def test_a_fold_that_leaves_the_norms_of_the_decoder_selects_other_features(architecture, generator):
    """Under an isometry it would not be seen: norms are the same."""
    sae, x = make(generator, architecture, **RESCALED), activations(generator)
    plain = copy.deepcopy(sae)
    plain.cfg.rescale_acts_by_decoder_norm = False
    differing = {}
    for there in (isometry(generator), affine(generator)):
        wrong = port_sae(plain, there)
        wrong.cfg.rescale_acts_by_decoder_norm = True
        differing[there.name] = (
            ((wrong.encode(x) != 0) != (sae.encode(there(x)) != 0)).any(-1).double().mean()
        )
    assert differing["orthogonal"] == 0
    assert differing["affine"] > 0.1


def different_tokens(ported: SAE[Any], sae: SAE[Any], there: Map, x: Tensor) -> float:
    with torch.no_grad():
        return float(((ported.encode(x) != 0) != (sae.encode(there(x)) != 0)).any(-1).double().mean())


@pytest.mark.parametrize("kind", ["isometry", "affine"])
@pytest.mark.parametrize("which", UNTIED)
def test_in_float32_hardly_any_token_has_other_features(which, kind, generator):
    architecture, more = UNTIED[which]
    sae = make(
        generator, architecture, "float32", d=64, features=512, **{**more, **({"k": 16} if more else {})}
    )
    there = (isometry(generator, 64) if kind == "isometry" else affine(generator, d=64)).to(torch.float32)
    x = activations(generator, 4096, 64).float()
    ported = port_sae(sae, there)
    assert all(values.dtype == torch.float32 for values in ported.parameters())
    assert different_tokens(ported, sae, there, x) < 1e-3
    blurred = port_sae(sae, there).to(torch.bfloat16).to(torch.float32)  # the opposite
    assert different_tokens(blurred, sae, there, x) > 1e-2


def test_the_saved_folder_opens_in_saelens(generator, tmp_path):
    sae, x = make(generator, "topk", **RESCALED), activations(generator)
    provenance = {"digest": "0a1b", "seeds": (0, 1), "step": 0, "R²": 0.5}
    ported = port_sae(sae, isometry(generator), provenance=provenance)
    ported.save_model(tmp_path)
    read = SAE.load_from_disk(tmp_path)
    assert torch.equal(read.encode(x), ported.encode(x))
    assert torch.equal(read(x), ported(x))
    assert read.cfg.metadata.ported == ported.cfg.metadata.ported
    assert read.cfg.metadata.ported == {
        "map": "orthogonal",
        "back": "inverse",
        "provenance": {**provenance, "seeds": [0, 1]},
    }


def test_a_second_port_keeps_the_record_of_the_first(generator):
    once = port_sae(make(generator, "standard"), isometry(generator))
    twice = port_sae(once, affine(generator), affine(generator))
    assert twice.cfg.metadata.ported == {
        "map": "affine",
        "back": "affine",
        "provenance": {},
        "before": {"map": "orthogonal", "back": "inverse", "provenance": {}},
    }
    assert "before" not in once.cfg.metadata.ported


@pytest.mark.parametrize("which", [*UNTIED, "matching_pursuit"])
def test_the_identity_changes_nothing_and_a_round_trip_returns(which, generator):
    architecture, more = UNTIED.get(which, (which, {}))
    sae, x = make(generator, architecture, **more), activations(generator)
    zero = torch.zeros(D, dtype=torch.float64)
    there = isometry(generator) if which == "matching_pursuit" else affine(generator)
    same = port_sae(sae, Map("identity", torch.eye(D, dtype=torch.float64), zero, zero))
    returned = port_sae(port_sae(sae, there), there.inv)
    for other in (same, returned):
        torch.testing.assert_close(other.encode(x), sae.encode(x), **EXACTLY)
        torch.testing.assert_close(other(x), sae(x), **EXACTLY)
    assert (port_sae(sae, there).encode(x) - sae.encode(x)).abs().max() > 0.1  # it went somewhere


@pytest.mark.parametrize("which", ["standard", "topk_rescaled"])
def test_under_an_isometry_the_explained_variance_is_the_same(which, generator):
    architecture, more = UNTIED[which]
    sae, x = make(generator, architecture, **more), activations(generator)

    def of_both(there: Map) -> tuple[float, float]:
        mapped = there(x)
        with torch.no_grad():
            return (
                explained_variance(port_sae(sae, there)(x), x),
                explained_variance(sae(mapped), mapped),
            )

    there, here = of_both(isometry(generator))
    assert there == pytest.approx(here, rel=1e-10)
    there, here = of_both(affine(generator))  # the opposite: it weighs the directions otherwise
    assert abs(there - here) > 0.01


@pytest.mark.parametrize("apply_b_dec", [True, False])
def test_matching_pursuit_is_exact_for_isometries(apply_b_dec, generator):
    sae = make(generator, "matching_pursuit", apply_b_dec_to_input=apply_b_dec, max_iterations=4)
    there = isometry(generator)
    check_port(sae, there, None, generator)
    check_port(sae, Map("affine", there.weight, there.mean_in, there.mean_out), None, generator)  # measured
    check_port(sae, there, there.inv, generator)


def test_matching_pursuit_takes_a_rotation_in_float32(generator):
    there = isometry(generator, 64).to(torch.float32)
    port_sae(make(generator, "matching_pursuit", "float32", d=64), there, there.inv)


def pursuit_maps(generator: torch.Generator) -> dict[str, tuple[Map, Map | None]]:
    there, narrow = isometry(generator), make_map("affine", haar(generator, D)[:5], generator)
    moved = Map("orthogonal", there.inv.weight, there.inv.mean_in, there.inv.mean_out + 1)
    return {
        "affine": (affine(generator), None),
        "similarity": maps_between("similarity", generator),
        "claimed": (make_map("rotation", conditioned(generator, D, 9.0), generator), None),
        "another back": (there, isometry(generator)),
        "moved back": (there, moved),
        "narrow": (narrow, Map("affine", narrow.weight.mT, narrow.mean_out, narrow.mean_in)),
    }


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("affine", "there from an isometry by"),
        ("similarity", "there from an isometry by"),
        ("claimed", "there from an isometry by"),
        ("another back", "back from its inverse by"),
        ("moved back", "is their shifts from undoing one another by"),
        ("narrow", "back from its inverse by"),
    ],
)
def test_matching_pursuit_refuses_other_maps(wrong, match, generator):
    sae = make(generator, "matching_pursuit")
    with pytest.raises(ValueError, match=match):
        port_sae(sae, *pursuit_maps(generator)[wrong])


def test_the_original_and_the_global_generator_are_left_alone(generator):
    sae, x = make(generator, "topk", **RESCALED), activations(generator)
    sae(x).sum().backward()
    seen = []
    sae.hook_sae_acts_post.register_forward_hook(lambda *given: seen.append(1))
    weights, cfg = copy.deepcopy(sae.state_dict()), copy.deepcopy(sae.cfg.to_dict())
    state = torch.random.get_rng_state()
    ported = port_sae(sae, *maps_between("wider", generator))
    ported(activations(generator, d=D + 3)).sum().backward()
    with torch.no_grad():
        for parameter in ported.parameters():
            parameter.zero_()
    assert all(torch.equal(values, weights[name]) for name, values in sae.state_dict().items())
    assert sae.cfg.to_dict() == cfg
    assert torch.equal(torch.random.get_rng_state(), state)
    assert ported.cfg.d_in == D + 3
    assert not ported.training
    sae.encode(x)
    assert "ported" not in sae.cfg.metadata


def test_hooks_stay_with_the_original(generator):
    sae, x = make(generator, "standard"), activations(generator)
    seen = []
    sae.hook_sae_acts_post.add_hook(lambda acts, hook: seen.append(hook.name), is_permanent=True)
    ported = port_sae(sae, isometry(generator))
    ported.encode(x)
    assert seen == []
    sae.encode(x)
    assert len(seen) == 1


def test_every_architecture_of_saelens_has_its_line():
    assert set(EXACT) == set(SAE_CLASS_REGISTRY)
    assert exact_for("standard") == "any map"
    assert exact_for("matching_pursuit") == "isometries"
    assert exact_for("of tomorrow") == "never"


@pytest.mark.parametrize("architecture", [name for name, exact in EXACT.items() if exact == "never"])
def test_what_no_fold_can_stand_for_is_refused(architecture, generator):
    sae_class, config = get_sae_class(architecture)
    more = (
        {"d_out": D, "apply_b_dec_to_input": False}
        if "transcoder" in architecture
        else {"bottleneck_factor": 1}
    )
    sae = sae_class(config(d_in=D, d_sae=FEATURES, dtype="float64", **more))
    with pytest.raises(ValueError, match=f"a {architecture} SAE cannot be ported"):
        port_sae(sae, isometry(generator))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"normalize_activations": "layer_norm"}, "layer_norm"),
        ({"normalize_activations": "constant_norm_rescale"}, "constant_norm_rescale"),
        ({"normalize_activations": "expected_average_only_in"}, "fold the normalisation first"),
        ({"normalize_activations": "covariance_whitening"}, "fold the normalisation first"),
        ({"reshape_activations": "hook_z"}, "hook_z"),
    ],
)
def test_an_sae_that_changes_its_input_is_refused(changed, match, generator):
    with pytest.raises(ValueError, match=match):
        port_sae(make(generator, "standard", **changed), isometry(generator))


@pytest.mark.parametrize("architecture", ["standard", "batchtopk", "matching_pursuit"])
def test_a_training_form_is_refused(architecture, generator):
    training_class, config = get_sae_training_class(architecture)
    sae = training_class(config(d_in=D, d_sae=FEATURES, decoder_init_norm=1.0))
    with pytest.raises(ValueError, match="write it with save_inference_model"):
        port_sae(sae, isometry(generator))


class Squared(StandardSAE):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x).square()


def test_a_class_of_somebody_elses_is_refused(generator):
    sae = make(generator, "standard")
    with pytest.raises(ValueError, match="Squared is not SAELens' own standard SAE"):
        port_sae(fill(Squared(sae.cfg), generator), isometry(generator))


@pytest.mark.parametrize("role", ["there", "back"])
def test_a_map_that_does_not_fit_is_refused(role, generator):
    sae, good = make(generator, "standard"), isometry(generator)

    def port_with(wrong: Map) -> SAE[Any]:
        return port_sae(sae, **{"there": good, role: wrong})

    with pytest.raises(ValueError, match=f"{role} is a stack of maps"):
        port_with(stacked([good, good]))
    with pytest.raises(ValueError, match=f"{role} maps 8 to 9 dimensions"):
        port_with(make_map("affine", normal(generator, D, D + 1), generator))
    for key in ("weight", "mean_in", "mean_out"):
        wrong = copy.deepcopy(good)
        getattr(wrong, key)[0] = float("nan")
        with pytest.raises(ValueError, match=f"{role} has values that are not finite: {key}"):
            port_with(wrong)


def test_back_has_to_start_and_end_where_there_does(generator):
    sae, (there, back) = make(generator, "standard"), maps_between("wider", generator)
    with pytest.raises(ValueError, match="back maps 8 to 8 dimensions; wanted is 8 to 11"):
        port_sae(sae, there, isometry(generator))
    with pytest.raises(ValueError, match=r"back maps 11 to 8 dimensions; wanted is 8 to 11"):
        port_sae(sae, there, there)
    assert port_sae(sae, there, back).W_enc.shape == (D + 3, FEATURES)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["reduced_rank", "wider"])
def test_without_an_inverse_back_has_to_be_given(kind, dtype, generator):
    there, _ = maps_between(kind, generator)
    with pytest.raises(ValueError, match=r"has (rank 3 of 8|no inverse).*; give `back`"):
        port_sae(make(generator, "standard"), there.to(dtype))


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"])
def test_weights_that_are_not_finite_are_refused(name, generator):
    sae = make(generator, "jumprelu")
    sae.get_parameter(name).data.view(-1)[3] = float("inf")
    with pytest.raises(ValueError, match=f"the SAE has values that are not finite: {name}"):
        port_sae(sae, isometry(generator))


def test_what_leaves_the_range_of_its_dtype_is_refused(generator):
    """A decoder row of norm zero cannot be rescaled either: SAELens' own decode has no number for it."""
    sae, there = make(generator, "topk", **RESCALED), isometry(generator)
    with torch.no_grad():
        sae.W_dec[5] = 0
        assert sae.decode(sae.encode(activations(generator))).isnan().any()
    with pytest.raises(ValueError, match="the ported SAE has values that are not finite: W_dec"):
        port_sae(sae, there)
    huge = Map("affine", 1e30 * there.weight, there.mean_in, there.mean_out)
    with pytest.raises(ValueError, match="the ported SAE has values that are not finite: W_enc, b_enc"):
        port_sae(make(generator, "standard", "float16"), huge)


@pytest.mark.parametrize("wrong", [{"map": torch.ones(1)}, {"loss": float("nan")}])
def test_provenance_is_plain_json(wrong, generator):
    with pytest.raises(ValueError, match="provenance must be plain JSON"):
        port_sae(make(generator, "standard"), isometry(generator), provenance=wrong)
