import math
from itertools import permutations

import pytest
import torch
from plants import normal
from scipy.stats import binom, chi2, kstest, norm

from polymorph.alignment.accumulator import MomentAccumulator
from polymorph.alignment.fit import orthogonal
from polymorph.alignment.haar import (
    REGISTERED,
    STATISTICS,
    eigenangle_ks,
    haar,
    paper_ks,
    paper_ks_size,
    permutation_distance,
    power_traces,
    signed_permutation_overlap,
    statistic_values,
)
from polymorph.alignment.haar_laws import haar_tests, law, p_value, registered_p
from polymorph.alignment.haar_refit import block_residuals, refit_draws, refit_values
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.rotation import determinant_sign, eigenvalue_angles

SIGNIFICANCE = 0.05
D = 64


def band(simulations: int) -> tuple[float, float]:
    """The central 99.9 % of the rejected share of an exact test at 5 %."""
    low, high = binom.interval(0.999, simulations, SIGNIFICANCE)
    return low / simulations, high / simulations


def signed_permutations(generator: torch.Generator, n: int, d: int) -> torch.Tensor:
    order = torch.stack([torch.randperm(d, generator=generator) for _ in range(n)])
    signs = torch.randint(2, (n, d, 1), generator=generator) * 2.0 - 1
    return signs * torch.eye(d, dtype=torch.float64)[order]


def blocks_of(generator: torch.Generator, n: int, d: int, blocks: int) -> torch.Tensor:
    parts = [haar(d // blocks, n, generator) for _ in range(blocks)]
    return torch.stack([torch.block_diag(*part) for part in zip(*parts, strict=True)])


def fixed(generator: torch.Generator, n: int, d: int, k: int) -> torch.Tensor:
    ones = torch.eye(k, dtype=torch.float64)
    return torch.stack([torch.block_diag(ones, part) for part in haar(d - k, n, generator)])


def pinned(generator: torch.Generator, n: int, d: int, k: int) -> torch.Tensor:
    """The identity on a random subspace of k dimensions."""
    Q = haar(d, n, generator)
    return Q @ fixed(generator, n, d, k) @ Q.mT


def privileged(generator: torch.Generator, n: int, d: int, k: int) -> torch.Tensor:
    """k axes go to k axes, with signs; the rest is Haar."""
    sides = [signed_permutations(generator, n, d) for _ in range(2)]
    return sides[0] @ fixed(generator, n, d, k) @ sides[1]


def p_values(R: torch.Tensor, name: str, draws: int = 999) -> torch.Tensor:
    """One p-value per matrix, each against the law of its determinant."""
    values, tail = STATISTICS[name].function(R), STATISTICS[name].tail
    by_sign = {sign: p_value(values, law(name, R.shape[-1], (sign,), draws), tail) for sign in (1, -1)}
    return torch.where(determinant_sign(R) > 0, by_sign[1], by_sign[-1])


def power(R: torch.Tensor, name: str, draws: int = 999) -> float:
    return float((p_values(R, name, draws) <= SIGNIFICANCE).double().mean())


@pytest.mark.parametrize("determinant", [1, -1])
@pytest.mark.parametrize("d", [1, 2, 7])
def test_draws_are_orthogonal_with_the_asked_determinant(generator, d, determinant):
    R = haar(d, 50, generator, determinant)
    torch.testing.assert_close(R @ R.mT, torch.eye(d, dtype=torch.float64).expand(50, d, d))
    assert set(determinant_sign(R).tolist()) == {determinant}


def test_without_a_determinant_half_the_draws_reflect(generator):
    assert abs(float(determinant_sign(haar(5, 2000, generator)).mean())) < 3.3 / math.sqrt(2000)


def test_entries_are_those_of_a_random_unit_vector(generator):
    """√d R_ij has E = 0, E² = 1, E⁴ = 3d/(d + 2); without the sign fix of QR, R_11 would be negative."""
    R = haar(4, 20000, generator, 1) * 2
    torch.testing.assert_close(R.mean(0), torch.zeros(4, 4, dtype=torch.float64), rtol=0, atol=0.03)
    torch.testing.assert_close(R.square().mean(0), torch.ones(4, 4, dtype=torch.float64), rtol=0, atol=0.04)
    torch.testing.assert_close(R.pow(4).mean(0), torch.full((4, 4), 2.0).double(), rtol=0, atol=0.15)


PUBLISHED = {  # mean and standard deviation under Haar, (d = 64), (d = 512)
    "signed_permutation_overlap": ((19.98, 0.33), (70.92, 0.29)),
    "largest_entry": ((0.454, 0.033), (0.2075, 0.0094)),
    "fourth_moment": ((1, 0.024), (1, 0.0031)),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("determinant", [1, -1])
def test_laws_have_the_known_mean_and_spread(name, determinant):
    draws, (mean, sd) = law(name, D, (determinant,)), PUBLISHED[name][0]
    assert float(draws.mean()) == pytest.approx(mean, abs=4 * sd / math.sqrt(999) + 0.002)
    assert float(draws.std()) == pytest.approx(
        sd, rel=0.12
    )  # the SE of a spread is 2.2 %, the maximum's more


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_laws_at_512(name):
    draws, (mean, sd) = law(name, 512, (1,), draws=100), PUBLISHED[name][1]
    assert float(draws.mean()) == pytest.approx(mean, abs=4 * sd / 10 + 0.002)
    assert float(draws.std()) == pytest.approx(sd, rel=0.35)


@pytest.mark.parametrize("determinant", [1, -1])
def test_traces_have_their_exact_laws(determinant):
    assert kstest(law("trace", D, (determinant,)), norm.cdf).pvalue > 0.01
    assert kstest(law("power_traces", D, (determinant,)), chi2(10).cdf).pvalue > 0.01


def test_moments_of_the_trace_are_gaussian_to_high_order(generator):
    """E (tr R)^2j = (2j − 1)!! for d > 2j (Diaconis and Shahshahani 1994), far below the limit of large d."""
    t = STATISTICS["trace"].function(haar(12, 40000, generator))
    for power_, exact, se in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert float(t.pow(power_).mean()) == pytest.approx(exact, abs=4 * se / 200)


def test_power_traces_are_those_of_the_eigenvalues(generator):
    R = haar(9, 4, generator)
    angles = eigenvalue_angles(R)
    by_angle = sum(((k * angles).cos().sum(-1) - int(k % 2 == 0)) ** 2 / k for k in range(1, 11))
    torch.testing.assert_close(power_traces(R), by_angle)


def test_the_overlap_is_the_best_of_all_signed_permutations(generator):
    R = haar(5, 3, generator)
    every = torch.stack([R[:, range(5), order].abs().sum(-1) for order in permutations(range(5))])
    torch.testing.assert_close(signed_permutation_overlap(R), every.amax(0))
    unsigned = torch.stack([R[:, range(5), order].sum(-1) for order in permutations(range(5))]).amax(0)
    torch.testing.assert_close(permutation_distance(R), (10 - 2 * unsigned).sqrt())


@pytest.mark.parametrize("name", ["trace", "power_traces", "eigenangle_ks"])
def test_spectral_statistics_do_not_know_the_basis(generator, name):
    R, Q, function = haar(10, 5, generator), haar(10, 5, generator), STATISTICS[name].function
    torch.testing.assert_close(function(Q @ R @ Q.mT), function(R))
    assert not torch.allclose(function(Q @ R), function(R), rtol=1e-3)


@pytest.mark.parametrize("name", ["signed_permutation_overlap", "largest_entry", "fourth_moment"])
def test_entry_statistics_know_the_axes_up_to_order_and_sign(generator, name):
    R, function = haar(10, 5, generator), STATISTICS[name].function
    left, right = (signed_permutations(generator, 5, 10) for _ in range(2))
    torch.testing.assert_close(function(left @ R @ right), function(R))
    Q = haar(10, 5, generator)
    assert not torch.allclose(function(Q @ R @ Q.mT), function(R), rtol=1e-3)


def test_leading_axes_are_a_batch(generator):
    R = haar(6, 8, generator)
    for name, values in statistic_values(R.reshape(2, 4, 6, 6), tuple(STATISTICS)).items():
        assert values.shape == (2, 4)
        one_by_one = torch.stack([STATISTICS[name].function(r) for r in R])
        torch.testing.assert_close(values.flatten(), one_by_one)


def test_the_identity_and_a_permutation_are_not_haar(generator):
    eye = torch.eye(D, dtype=torch.float64)[None]
    tests = haar_tests(eye, names=[n for n in STATISTICS if n != "eigenangle_ks"])
    assert tests["signed_permutation_overlap"].value == D
    assert all(test.p <= 0.002 for test in tests.values())
    permutation = signed_permutations(generator, 1, D).abs()
    found = haar_tests(permutation)
    assert registered_p(found) == pytest.approx(0.002)
    assert found["permutation_distance"].value == 0
    assert found["fourth_moment"].value == pytest.approx((D + 2) / 3)


@pytest.mark.parametrize("blocks", [2, 16])
def test_a_block_diagonal_rotation_is_not_haar(generator, blocks):
    R = blocks_of(generator, 60, D, blocks)
    assert power(R, "signed_permutation_overlap") == 1
    if blocks == 2:  # the spectra of two halves, superposed, do not give them away
        assert power(R, "power_traces") < 0.8


def test_each_registered_test_sees_what_the_other_does_not(generator):
    axes, subspace = privileged(generator, 60, D, 6), pinned(generator, 60, D, 6)
    assert power(subspace, "power_traces") == 1
    assert power(subspace, "signed_permutation_overlap") < 0.4
    assert power(axes, "signed_permutation_overlap") == 1
    assert power(axes, "power_traces") < 0.4
    for R in (axes[:1], subspace[:1]):
        assert registered_p(haar_tests(R)) <= SIGNIFICANCE


def test_haar_is_accepted(generator):
    tests = haar_tests(haar(D, 1, generator), names=tuple(STATISTICS)[:-1])
    assert registered_p(tests) > SIGNIFICANCE
    assert all(abs(test.z) < 4 for test in tests.values())


def test_the_paper_test_accepts_haar_and_much_that_is_not(generator):
    assert float(paper_ks(haar(D, 100, generator)).mean()) > 0.9
    assert paper_ks_size(D, 100, seed=0) == 0
    assert float(paper_ks(blocks_of(generator, 100, D, 2)).mean()) > 0.9
    assert float(paper_ks(privileged(generator, 100, D, 8)).mean()) > 0.9
    permutations_ = paper_ks(signed_permutations(generator, 100, D).abs())
    assert float(permutations_.mean()) > 0.8
    assert float(permutations_.min()) > SIGNIFICANCE
    unrelated = normal(generator, 50, D, 400) @ normal(generator, 50, 400, D)
    U, _, Vh = torch.linalg.svd(unrelated)
    assert float(paper_ks(U @ Vh).mean()) > 0.9
    assert float(paper_ks(torch.eye(D, dtype=torch.float64))) < 1e-6  # it does see the plainest departure


def test_the_paper_test_is_that_of_scipy(generator):
    R = haar(20, 3, generator)
    angles = eigenvalue_angles(R)
    oracle = [kstest(a / (2 * math.pi) + 0.5, "uniform") for a in angles]
    torch.testing.assert_close(paper_ks(R), torch.tensor([found.pvalue for found in oracle]).double())
    statistics = torch.tensor([found.statistic for found in oracle]).double()
    torch.testing.assert_close(eigenangle_ks(R), statistics)


@pytest.mark.parametrize("name", STATISTICS)
def test_size_of_single_frames(generator, name):
    low, high = band(2000)
    assert low < power(haar(16, 2000, generator), name, draws=4000) < high


@pytest.mark.slow
@pytest.mark.parametrize("name", STATISTICS)
def test_size_of_single_frames_at_64(generator, name):
    low, high = band(2000)
    assert low < power(haar(D, 2000, generator), name, draws=4000) < high


@pytest.mark.parametrize("name", REGISTERED)
def test_size_of_means_over_frames(generator, name):
    """Three frames, of which one reflects; a law of the mean must not be that of one frame."""
    determinants = (-1, 1, 1)
    frames = torch.stack([haar(16, 2000, generator, sign) for sign in determinants])
    means = STATISTICS[name].function(frames).mean(0)
    low, high = band(2000)
    rejected = p_value(means, law(name, 16, determinants, draws=4000), "upper") <= SIGNIFICANCE
    assert low < float(rejected.double().mean()) < high
    single = p_value(means, law(name, 16, (1,), draws=4000), "upper") <= SIGNIFICANCE
    assert float(single.double().mean()) < low


def test_the_registered_pair_keeps_its_level(generator):
    R = haar(16, 2000, generator)
    smaller = torch.minimum(*(p_values(R, name, draws=4000) for name in REGISTERED))
    assert float((2 * smaller <= SIGNIFICANCE).double().mean()) < band(2000)[1]


def test_frames_weak_alone_are_strong_together(generator):
    frames = pinned(generator, 8, D, 2)
    together = haar_tests(frames)["power_traces"]
    assert together.p == 0.001
    alone = [haar_tests(frame[None])["power_traces"].p for frame in frames]
    assert max(alone) > SIGNIFICANCE


def test_p_values_count_draws():
    null = torch.tensor([3.0, 1.0, 2.0, 4.0]).double()
    values = torch.tensor([0.0, 2.0, 9.0]).double()
    torch.testing.assert_close(p_value(values, null, "upper"), torch.tensor([1.0, 0.8, 0.2]).double())
    torch.testing.assert_close(p_value(values, null, "two_sided"), torch.tensor([0.4, 1.0, 0.4]).double())


def test_laws_are_reproducible_and_depend_on_the_seed():
    first = law("trace", 8, (1, -1), draws=50, seed=3)
    law.cache_clear()
    assert torch.equal(first, law("trace", 8, (-1, 1), draws=50, seed=3))
    assert not torch.equal(first, law("trace", 8, (1, -1), draws=50, seed=4))
    assert bool((first.diff() >= 0).all())


DOCUMENTS, LENGTH, BLOCKS = 48, 8, 12


def clustered(generator: torch.Generator, R: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x, y = x R + e [pairs n d]: x anisotropic, both x and e alike within a document of 8 tokens."""
    pairs, d = R.shape[:2]
    shape = (pairs, DOCUMENTS, LENGTH, d)
    both = [normal(generator, *shape) + normal(generator, pairs, DOCUMENTS, 1, d) for _ in range(2)]
    x, e = (values.reshape(pairs, -1, d) for values in both)
    x = x * torch.linspace(0.5, 2, d, dtype=torch.float64) + 3
    return x, x @ R + noise * e * torch.linspace(2, 0.2, d, dtype=torch.float64)


def moments_of(x: torch.Tensor, y: torch.Tensor, blocks: int = BLOCKS) -> PairMoments:
    """[blocks, pairs], pair i being member i of x and of y."""
    accumulator = MomentAccumulator([(i, i) for i in range(len(x))], blocks)
    accumulator.update(x, torch.arange(DOCUMENTS).repeat_interleave(LENGTH), y)
    return accumulator.result()


def test_residuals_of_blocks_are_those_of_the_tokens(generator):
    x, y = clustered(generator, haar(5, 1, generator), 0.5)
    moments = moments_of(x, y)[:, 0]
    W = orthogonal(moments.total()).weight
    cx, cy = x[0] - x[0].mean(0), y[0] - y[0].mean(0)
    block = torch.arange(DOCUMENTS).repeat_interleave(LENGTH) % BLOCKS
    by_hand = [cx[block == b].T @ (cy - cx @ W)[block == b] for b in range(BLOCKS)]
    torch.testing.assert_close(block_residuals(moments, W), torch.stack(by_hand))


def test_refits_without_noise_are_haar_with_the_determinant_of_the_fit(generator):
    for sign in (1, -1):
        moments = moments_of(*clustered(generator, haar(4, 1, generator, sign), 0.0))[:, 0]
        R = refit_draws(moments, 300, generator)
        assert set(determinant_sign(R).tolist()) == {sign}
        exact = law("signed_permutation_overlap", 4, (sign,))
        assert kstest(signed_permutation_overlap(R), exact).pvalue > 0.01


def test_refits_scatter_as_new_data_do(generator):
    """The mean squared error of R̂ over new noise, against that of the replicates about their own truth.

    Of four blocks: residuals without the correction for the fit would give 3/4 of it.
    """
    R = haar(6, 400, generator, 1)
    moments = moments_of(*clustered(generator, R, 0.4), blocks=4)
    error = (orthogonal(moments.total()).weight - R).square().sum((-2, -1)).mean()
    replicates = []
    for i in range(100):
        seed = torch.Generator().manual_seed(i)
        R0 = haar(6, 5, torch.Generator().manual_seed(i), int(determinant_sign(R[i])))  # the first they draw
        found = refit_draws(moments[:, i], 5, seed)
        replicates.append((found - R0).square().sum((-2, -1)).mean())
    assert float(torch.stack(replicates).mean()) == pytest.approx(float(error), rel=0.15)


def test_the_refit_bootstrap_keeps_its_level(generator):
    """Warp speed (Giacomini, Politis and White 2013): one replicate of each simulation, pooled, is the null."""
    R = haar(16, 500, generator)
    moments = moments_of(*clustered(generator, R, 0.7))
    estimates = orthogonal(moments.total()).weight
    assert float((estimates - R).norm(dim=(-2, -1)).mean()) > 0.5  # the noise is not negligible
    replicates = torch.cat([refit_draws(moments[:, i], 1, generator) for i in range(500)])
    low, high = band(500)
    for name in ("trace", *REGISTERED):
        null, values = (STATISTICS[name].function(A) for A in (replicates, estimates))
        share = float((p_value(values, null, STATISTICS[name].tail) <= SIGNIFICANCE).double().mean())
        assert low < share < high, name


def test_noise_with_privileged_axes_is_charged_to_the_null(generator):
    """One axis of x outweighs the others, all noise is on one axis of y, and R is undetermined: R̂ joins the two."""
    x, e = (normal(generator, 1, DOCUMENTS * LENGTH, 12) for _ in range(2))
    x[..., 1:] *= 0.01
    e[..., 1:] *= 0
    moments = moments_of(x, x @ haar(12, 1, generator) + 1e4 * e)[:, 0]
    R = orthogonal(moments.total()).weight[None]
    nulls = [refit_values(moments, 199, generator, ["largest_entry"])]
    assert haar_tests(R, names=["largest_entry"])["largest_entry"].p == 0.001
    assert haar_tests(R, nulls, ["largest_entry"])["largest_entry"].p > SIGNIFICANCE


def test_a_scale_is_no_noise(generator):
    """Residuals 2 C_xx R̂/B alike in every block are a misfit that no rotation can follow: R* = R₀ exactly."""
    x = normal(generator, 1, LENGTH * 4, 6).repeat(1, BLOCKS, 1)
    accumulator = MomentAccumulator([(0, 0)], BLOCKS)
    accumulator.update(
        x, torch.arange(BLOCKS).repeat_interleave(LENGTH * 4), 3 * x @ haar(6, 1, generator, 1)
    )
    found = refit_draws(accumulator.result()[:, 0], 5, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, haar(6, 5, torch.Generator().manual_seed(1), 1))


def test_frames_are_tested_against_their_refits(generator):
    R = torch.cat([pinned(generator, 1, 16, 8), haar(16, 1, generator)])
    moments = moments_of(*clustered(generator, R, 0.2))
    estimates = orthogonal(moments.total()).weight
    nulls = [refit_values(moments[:, i], 199, generator, REGISTERED) for i in range(2)]
    first = haar_tests(estimates[:1], nulls[:1], REGISTERED)
    assert first["power_traces"].p == pytest.approx(1 / 200)
    second = haar_tests(estimates[1:], nulls[1:], REGISTERED)
    assert registered_p(second) > SIGNIFICANCE
    both = haar_tests(estimates, nulls, REGISTERED)["power_traces"]
    assert both.law_mean == pytest.approx(
        (first["power_traces"].law_mean + second["power_traces"].law_mean) / 2
    )
    assert both.draws == 199


@pytest.mark.parametrize(("d", "determinant"), [(0, 1), (3, 0), (3, 2)])
def test_impossible_draws_are_refused(generator, d, determinant):
    with pytest.raises(ValueError, match="determinant"):
        haar(d, 2, generator, determinant)


@pytest.mark.parametrize(
    ("d", "determinants", "draws"), [(1, (1,), 9), (4, (), 9), (4, (1, 0), 9), (4, (1,), 0)]
)
def test_impossible_laws_are_refused(d, determinants, draws):
    with pytest.raises(ValueError, match="no law"):
        law("trace", d, determinants, draws)


def test_a_matrix_that_is_not_orthogonal_is_refused(generator):
    with pytest.raises(ValueError, match="not an orthogonal matrix"):
        haar_tests(normal(generator, 1, 5, 5))
    with pytest.raises(Exception, match="R"):
        haar_tests(haar(5, 2, generator)[:, :4])


def test_p_values_of_nothing_are_refused():
    null = torch.zeros(3, dtype=torch.float64)
    for values, draws in ((null / 0, null), (null, null / 0), (null, null[:0])):
        with pytest.raises(ValueError, match="finite"):
            p_value(values, draws, "upper")


def test_nulls_that_do_not_fit_the_frames_are_refused(generator):
    R, null = haar(4, 2, generator), {"trace": torch.zeros(9, dtype=torch.float64)}
    with pytest.raises(ValueError, match="2 frames"):
        haar_tests(R, [null], ["trace"])
    with pytest.raises(ValueError, match="unequal"):
        haar_tests(R, [null, {"trace": null["trace"][:5]}], ["trace"])


def test_refits_that_cannot_be_are_refused(generator):
    x, y = clustered(generator, haar(5, 2, generator), 0.5)
    moments = moments_of(x, y)
    with pytest.raises(ValueError, match="one pair"):
        refit_draws(moments, 3, generator)
    one = PairMoments(**{name: value[None] for name, value in vars(moments[:, 0].total()).items()})
    with pytest.raises(ValueError, match="two blocks"):
        refit_draws(one, 3, generator)
    with pytest.raises(ValueError, match="equal dimensions"):
        refit_draws(moments_of(x, y[..., :4])[:, 0], 3, generator)
    with pytest.raises(ValueError, match="a draw or more"):
        refit_draws(moments[:, 0], 0, generator)


def test_an_empty_block_changes_nothing(generator):
    moments = moments_of(*clustered(generator, haar(5, 1, generator), 0.5))[:, 0]
    nothing = {name: torch.cat([value, torch.zeros_like(value[:1])]) for name, value in vars(moments).items()}
    residuals = block_residuals(PairMoments(**nothing), orthogonal(moments.total()).weight)
    assert not residuals[-1].any()
    torch.testing.assert_close(residuals[:-1], block_residuals(moments, orthogonal(moments.total()).weight))
    assert refit_draws(PairMoments(**nothing), 2, generator).shape == (2, 5, 5)
