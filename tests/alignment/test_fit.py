from itertools import pairwise

import pytest
import torch
from plants import activations, haar, normal
from scipy.linalg import orthogonal_procrustes

from polymorph.alignment import FITS, fit_orthogonal, fit_rotation, r2_from_moments
from polymorph.alignment.accumulator import pair_moments
from polymorph.alignment.controls import covariance_only, gaussian_cross
from polymorph.alignment.fit import orthogonal, rotation, signed_permutation, similarity
from polymorph.alignment.moments import PairMoments, explained_variance
from polymorph.alignment.regression import affine

LADDER = list(FITS)
UNCENTRED = ("identity", "signed_permutation")


def r2(name: str, fit: PairMoments, score: PairMoments) -> float:
    return float(r2_from_moments(FITS[name](fit), score))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_rotation_is_recovered(generator, sign):
    x, R = activations(generator), haar(generator, 8, sign)
    found = fit_orthogonal(x, x @ R + normal(generator, 8))
    torch.testing.assert_close(found.weight, R, rtol=0, atol=1e-10)


def test_without_reflection_the_best_rotation_is_found_and_a_reflection_is_not(generator):
    x, R = activations(generator), haar(generator, 8, sign=-1)
    y = x @ R
    turned = fit_rotation(x, y)
    assert float(torch.linalg.det(turned.weight)) == pytest.approx(1)
    best = explained_variance(turned(x), y)
    assert best < 0.999
    for _ in range(50):  # small turns away from the optimum are no better
        A = 0.05 * normal(generator, 8, 8)
        other = turned.weight @ torch.linalg.matrix_exp(A - A.T)
        assert explained_variance((x - x.mean(0)) @ other + y.mean(0), y) <= best


def test_so_and_o_agree_when_the_best_is_a_rotation(generator):
    x = activations(generator)
    moments = pair_moments(x, x @ haar(generator, 8, sign=1))
    torch.testing.assert_close(rotation(moments).weight, orthogonal(moments).weight)


def test_an_affine_truth_is_no_rotation(generator):
    x, stretch = activations(generator), torch.linspace(1, 3, 8, dtype=torch.float64)
    y = ((x @ haar(generator, 8)) * stretch) @ haar(generator, 8)
    moments = pair_moments(x, y)
    assert r2("affine", moments, moments) == pytest.approx(1, abs=1e-10)
    assert r2("affine", moments, moments) - r2("orthogonal", moments, moments) > 0.01


def test_a_scale_is_a_similarity_and_no_rotation(generator):
    x, R = activations(generator), haar(generator, 8)
    moments = pair_moments(x, 2.5 * x @ R)
    torch.testing.assert_close(similarity(moments).weight, 2.5 * R)
    assert r2("similarity", moments, moments) == pytest.approx(1, abs=1e-12)
    assert r2("orthogonal", moments, moments) < 0.9


def test_scipy_finds_the_same_orthogonal_matrix(generator):
    x, y = activations(generator), activations(generator)
    oracle, _ = orthogonal_procrustes((x - x.mean(0)).numpy(), (y - y.mean(0)).numpy())
    torch.testing.assert_close(fit_orthogonal(x, y).weight, torch.from_numpy(oracle), rtol=0, atol=1e-9)


def test_affine_is_least_squares(generator):
    x, y = activations(generator), activations(generator, d=5)
    cx = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    predicted = cx @ torch.linalg.lstsq(cx, y).solution
    torch.testing.assert_close(affine(pair_moments(x, y))(x), predicted, rtol=0, atol=1e-5)


def test_affine_bears_a_low_rank_source_with_float32_rounding(generator):
    basis, target = normal(generator, 3, 8), normal(generator, 3, 8)
    z = normal(generator, 600, 3)
    x, y = (z @ basis).float(), (z @ target).float()
    found = affine(pair_moments(x[:300], y[:300]))
    assert found.weight.abs().max() < 100
    assert explained_variance(found(x[300:]), y[300:]) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("name", LADDER)
def test_r2_from_moments_is_the_explained_variance_of_the_mapped_tokens(generator, name):
    x, y = activations(generator, 500), activations(generator, 500)
    y = 0.7 * x @ haar(generator, 8) + 0.3 * y
    found = FITS[name](pair_moments(x[:300], y[:300]))
    held_out = x[300:] + 0.5, y[300:]  # another mean than the fit split: δ matters
    score = r2_from_moments(found, pair_moments(*held_out))
    assert float(score) == pytest.approx(explained_variance(found(held_out[0]), held_out[1]), abs=1e-10)


@pytest.mark.parametrize(
    "chain",
    [
        ("identity", "signed_permutation"),
        ("identity", "shift", "rotation", "orthogonal", "similarity", "affine"),
    ],
)
def test_a_wider_family_fits_no_worse(generator, chain):
    x = activations(generator)
    y = 1.3 * x @ (haar(generator, 8, sign=-1) + 0.2 * normal(generator, 8, 8)) + normal(generator, 400, 8)
    moments = pair_moments(x, y)
    values = [r2(name, moments, moments) for name in chain]
    assert all(wider > narrower for narrower, wider in pairwise(values))


@pytest.mark.parametrize("name", [name for name in LADDER if name not in UNCENTRED])
def test_centred_fits_do_not_see_a_constant_offset(generator, name):
    x, y = activations(generator), activations(generator)
    moved = pair_moments(x + 40, y - 7)
    plain = pair_moments(x, y)
    assert r2(name, moved, moved) == pytest.approx(r2(name, plain, plain), abs=1e-9)


def test_the_identity_does_see_it(generator):
    x = activations(generator)
    assert r2("identity", pair_moments(x, x), pair_moments(x, x)) == pytest.approx(1, abs=1e-14)
    assert r2("identity", pair_moments(x, x + 4), pair_moments(x, x + 4)) < -1


def permutation(generator: torch.Generator, d: int = 8) -> torch.Tensor:
    signs = 1.0 - 2 * torch.randint(2, (d,), generator=generator)
    return torch.diag(signs.double())[torch.randperm(d, generator=generator)]


def test_a_planted_signed_permutation_is_recovered(generator):
    x, P = activations(generator), permutation(generator)
    found = signed_permutation(pair_moments(x, x @ P + 0.1 * normal(generator, 400, 8)))
    assert torch.equal(found.weight, P)
    assert torch.equal(found.mean_in, torch.zeros(8, dtype=torch.float64))
    assert torch.equal(found.inv(found(x)), x)


def test_a_rotation_is_no_signed_permutation(generator):
    x = activations(generator)
    moments = pair_moments(x, x @ haar(generator, 8))
    assert r2("signed_permutation", moments, moments) < 0.5
    assert r2("rotation", moments, moments) > r2("signed_permutation", moments, moments) + 0.3


def test_no_other_signed_permutation_is_better_nor_is_the_centred_one(generator):
    x, y = activations(generator), activations(generator)  # the means are three standard deviations
    moments = pair_moments(x, y)
    P = signed_permutation(moments).weight
    best = float((x @ P - y).square().sum())
    assert all(float((x @ permutation(generator) - y).square().sum()) >= best for _ in range(200))
    centred = signed_permutation(pair_moments(x - x.mean(0), y - y.mean(0))).weight
    assert float((x @ centred - y).square().sum()) > best


@pytest.mark.parametrize("name", ["rotation", "orthogonal", "similarity", "affine"])
def test_too_few_tokens_are_named(generator, name):
    few = pair_moments(activations(generator, n=8), activations(generator, n=8))
    with pytest.raises(ValueError, match="8 tokens in 8 dimensions"):
        FITS[name](few)


@pytest.mark.parametrize("name", LADDER)
def test_unequal_dimensions_are_for_affine_alone(generator, name):
    moments = pair_moments(activations(generator), activations(generator, d=5))
    if name == "affine":
        assert FITS[name](moments).weight.shape == (8, 5)
        return
    with pytest.raises(ValueError, match="8 and 5"):
        FITS[name](moments)


def test_a_constant_side_is_refused(generator):
    x, constant = activations(generator), torch.full((400, 8), 0.1, dtype=torch.float64)
    with pytest.raises(ValueError, match="source has no variance"):
        affine(pair_moments(constant, x))
    with pytest.raises(ValueError, match="target has no variance"):
        r2("shift", pair_moments(x, constant), pair_moments(x, constant))


def test_fits_refuse_other_shapes(generator):
    with pytest.raises(Exception, match="y"):
        fit_orthogonal(activations(generator, n=30), activations(generator, n=31))
    with pytest.raises(ValueError, match="not finite"):
        fit_orthogonal(activations(generator), activations(generator) * torch.inf)


def test_covariance_alone_carries_the_spectrum_and_not_the_tokens(generator):
    x, y = activations(generator, 2000), activations(generator, 2000)
    moments = pair_moments(x, y)
    found = covariance_only(moments, generator)
    W, one = found.weight, torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(W.T @ W, one)
    carried, basis = W.T @ moments.xx @ W, torch.linalg.eigh(moments.yy).eigenvectors
    in_basis = basis.T @ carried @ basis  # the variances of x, in order, on the axes of y
    wanted = torch.diag(torch.linalg.eigvalsh(moments.xx))
    torch.testing.assert_close(in_basis, wanted, rtol=0, atol=1e-9 * float(wanted.max()))
    assert (found.name, bool(torch.equal(found.mean_out, moments.mean_y))) == ("orthogonal", True)


def test_covariance_alone_needs_the_pairing_for_its_signs(generator):
    x, R = activations(generator, 2000), haar(generator, 8)
    moments = pair_moments(x, x @ R)
    assert r2("orthogonal", moments, moments) == pytest.approx(1)
    scores = [float(r2_from_moments(covariance_only(moments, generator), moments)) for _ in range(50)]
    # each axis is right or reversed: R² is 1 − 4 · (the share of the variance reversed), −1 in the mean
    assert -1.5 < sum(scores) / 50 < -0.5
    blind = pair_moments(x, (x @ R)[torch.randperm(2000, generator=generator)])
    state = generator.get_state()
    one = covariance_only(moments, generator).weight
    generator.set_state(state)
    torch.testing.assert_close(covariance_only(blind, generator).weight, one)  # up to rounding of yy


def test_a_gaussian_target_keeps_the_spectra_and_loses_the_pairing(generator):
    x = activations(generator, 4000)
    moments = pair_moments(x, x @ haar(generator, 8))
    independent = gaussian_cross(moments, generator)
    for name in ("n", "mean_x", "mean_y", "xx", "yy"):
        assert torch.equal(getattr(independent, name), getattr(moments, name))
    for name in ("rotation", "orthogonal", "similarity", "affine"):
        assert r2(name, moments, moments) > 0.99
        # scored on true pairs; chance correlations have a standard deviation of 1/√4000 an entry
        assert r2(name, independent, moments) < 0.15
    for name in ("similarity", "affine"):  # in its own sums it fits d/n = 0.002 by chance
        assert 0 <= r2(name, independent, independent) < 0.01


def test_gaussian_cross_moments_are_those_of_gaussian_tokens(generator):
    """Second moments of the entries of xy over draws: E xy_ij xy_kl = xx_ik yy_jl / n."""
    moments = pair_moments(activations(generator, 100, 3), activations(generator, 100, 2))
    draws = torch.stack([gaussian_cross(moments, generator).xy.flatten() for _ in range(4000)])
    wanted = torch.kron(moments.xx, moments.yy / 100)
    scale = wanted.diagonal().sqrt()
    error = (draws.T @ draws / 4000 - wanted) / torch.outer(scale, scale)
    assert (
        error.abs().max() < 0.12
    )  # standard deviation of a variance √(2/4000) = 0.022, of the largest of 36
