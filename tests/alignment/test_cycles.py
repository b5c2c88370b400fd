import math
from importlib import import_module
from itertools import combinations

import pytest
import torch
from plants import activations, haar, normal
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from polymorph.alignment.accumulator import MomentAccumulator
from polymorph.alignment.cycles import cycle_coherence, pair_table, support_basis, triangles
from polymorph.alignment.fit import orthogonal, r2_from_moments
from polymorph.alignment.moments import PairMoments, explained_variance
from polymorph.alignment.regression import affine
from polymorph.alignment.synchronise import (
    Frames,
    consensus,
    leave_one_out_r2,
    synchronise,
    synchronised_r2,
)

synchronising = import_module("polymorph.alignment.synchronise")

D = 12
SIGNS = (1, -1, 1, -1)
MOMENTS = ("n", "mean_x", "mean_y", "xx", "yy", "xy")


def all_pairs(members: int) -> list[tuple[int, int]]:
    return list(combinations(range(members), 2))


def cohort_moments(x: Tensor) -> PairMoments:
    """Moments [pairs] of the members of x [members n d]."""
    accumulator = MomentAccumulator(all_pairs(len(x)), blocks=2)
    accumulator.update(x, torch.arange(x.shape[1]) // 10)
    return accumulator.total()


def copies(generator, turns: Tensor, n: int = 400, noise: float = 0.0) -> Tensor:
    """Members [m n d]: one dataset, turned, moved and with independent noise relative to its RMS."""
    x = activations(generator, n, turns.shape[-1])
    noise *= float((x - x.mean(0)).square().mean().sqrt())
    m, d = len(turns), turns.shape[-1]
    return x @ turns + 2 * normal(generator, m, 1, d) + noise * normal(generator, m, n, d)


def haars(generator, m: int = 4, d: int = D) -> Tensor:
    return torch.stack([haar(generator, d, SIGNS[i % 4]) for i in range(m)])


def unrelated(generator, m: int = 4, n: int = 2000, d: int = D) -> Tensor:
    return torch.stack([activations(generator, n, d) for _ in range(m)])


def coherence(moments: PairMoments, members: int, r: int) -> Tensor:
    pairs = all_pairs(members)
    return cycle_coherence(orthogonal(moments).weight, pairs, support_basis(moments, pairs, r))


def token_objective(z: Tensor) -> float:
    """Σ_{i<j} ‖z_i − z_j‖² of members [m n d]."""
    return sum(float((z[i] - z[j]).square().sum()) for i, j in all_pairs(len(z)))


def unit(x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / torch.linalg.matrix_norm(centred)[:, None, None]


def test_copies_agree_round_every_triangle_and_noise_costs_little(generator):
    turns = haars(generator)
    exact = coherence(cohort_moments(copies(generator, turns)), 4, D)
    torch.testing.assert_close(exact, torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-10)
    noisy = coherence(cohort_moments(copies(generator, turns, n=2000, noise=0.1)), 4, D)
    assert noisy.min() >= 0.99
    assert noisy.max() < 1 - 1e-8  # measured 1 − 1e-6: second order in the error of the maps


def test_independent_haar_maps_have_the_documented_law(generator):
    m, r = 12, 3
    maps = torch.stack([haar(generator, D) for _ in all_pairs(m)])
    found = cycle_coherence(maps, all_pairs(m), torch.stack([haar(generator, D)[:, :r] for _ in range(m)]))
    n, sd = len(found), 1 / math.sqrt(r * D)
    assert n == 220
    assert abs(float(found.mean())) < 4 * sd / math.sqrt(n)  # triangles are uncorrelated: 4 standard errors
    assert float(found.std()) == pytest.approx(sd, rel=4 / math.sqrt(2 * n))


def test_unrelated_members_are_near_zero_with_the_documented_bias_of_shared_tokens(generator):
    m, n = 8, 1000
    found = coherence(cohort_moments(normal(generator, m, n, D)), m, D)
    bias = (8 / (3 * math.pi)) ** 3 * math.sqrt(D / n)
    error = 4 / D / math.sqrt(len(found))
    assert float(found.mean()) == pytest.approx(bias, abs=error)
    assert float(found.mean()) > error  # the opposite: the Haar law alone does not hold
    assert found.max() < 0.5


@pytest.mark.parametrize(("shuffled", "biased"), [("pair", False), ("member", True)])
def test_a_shuffle_of_each_pair_hides_the_bias_and_one_of_each_member_keeps_it(generator, shuffled, biased):
    m, n, d = 6, 1000, 32
    x, order = normal(generator, m, n, d), torch.randperm(n, generator=generator)
    if shuffled == "pair":
        accumulator = MomentAccumulator(all_pairs(m), blocks=1)
        accumulator.update(x[:, order], torch.zeros(n, dtype=torch.long), right=x)
        found = coherence(accumulator.total(), m, d)
    else:
        each = [member[torch.randperm(n, generator=generator)] for member in x]
        found = coherence(cohort_moments(torch.stack(each)), m, d)
    expected = (8 / (3 * math.pi)) ** 3 * math.sqrt(d / n) if biased else 0
    assert float(found.mean()) == pytest.approx(expected, abs=4 / d / math.sqrt(len(found)))


def test_a_low_rank_cohort_agrees_on_its_support_and_not_in_the_whole_space(generator):
    r, turns = 4, haars(generator)
    z = normal(generator, 400, r) @ normal(generator, r, D)
    moments = cohort_moments(z @ turns + 1e-7 * normal(generator, 4, 400, D))
    assert coherence(moments, 4, r).min() > 1 - 1e-9
    assert coherence(moments, 4, D).max() < 0.8


def test_the_support_is_what_is_shared_and_not_what_is_large(generator):
    shared, turns, n = 3, haars(generator), 2000
    own = 2 * normal(generator, 4, n, D - shared)  # larger, and of one member only
    z = torch.cat([normal(generator, n, shared).expand(4, n, shared), own], dim=-1)
    moments = cohort_moments(z @ turns)
    P = support_basis(moments, all_pairs(4), shared)
    torch.testing.assert_close(P.mT @ P, torch.eye(shared, dtype=torch.float64).repeat(4, 1, 1))
    overlap = (P.mT @ turns[:, :shared].mT).square().sum((1, 2)) / shared
    assert overlap.min() > 0.9
    principal = torch.linalg.eigh(moments.xx[0]).eigenvectors[:, -shared:]
    assert (principal.mT @ turns[0, :shared].mT).square().sum() / shared < 0.1


def test_triangles_follow_the_definition_in_order(generator):
    m, r = 5, 4
    pairs, P = all_pairs(m), torch.stack([haar(generator, D)[:, :r] for _ in range(m)])
    maps = {pair: haar(generator, D) for pair in pairs}
    backwards = pairs[::-1]  # the order of the pairs is free
    found = cycle_coherence(torch.stack([maps[pair] for pair in backwards]), backwards, P)
    assert triangles(m).tolist() == [list(t) for t in combinations(range(m), 3)]
    for value, (i, j, k) in zip(found, triangles(m).tolist(), strict=True):
        product = P[i].T @ maps[i, j] @ maps[j, k] @ maps[i, k].T @ P[i]
        assert float(value) == pytest.approx(float(torch.trace(product)) / r, abs=1e-12)


def test_batches_of_triangles_leave_the_values_alone(generator, monkeypatch):
    moments = cohort_moments(unrelated(generator, m=6, n=100))
    whole = coherence(moments, 6, 5)
    monkeypatch.setattr("polymorph.alignment.cycles.GATHER_NUMBERS", 3 * D**2)
    torch.testing.assert_close(coherence(moments, 6, 5), whole)


@pytest.fixture(params=["spectral", "star"])
def start(request, monkeypatch):
    monkeypatch.setattr(synchronising, "SPECTRAL_SIDE", 4096 if request.param == "spectral" else 0)


@pytest.mark.usefixtures("start")
def test_planted_frames_are_recovered_up_to_the_gauge(generator):
    turns = haars(generator)
    x = copies(generator, turns)
    frames = synchronise(cohort_moments(x), all_pairs(4))
    expected = turns.mT @ turns[0]  # x_i = x₀ turns_i, so Q_i undoes turns_i, then turns like member 0
    torch.testing.assert_close(frames.turn, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(frames.turn[0], torch.eye(D, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(frames.mean, x.mean(1))
    assert frames.objective == pytest.approx(1, abs=1e-12)
    assert frames.converged
    there, back = frames.map(1, 3), frames.map(3, 1)
    torch.testing.assert_close(there(x[1]), x[3])
    torch.testing.assert_close(there.inv.weight, back.weight)


def test_both_starts_reach_the_same_objective_and_leave_the_first_one_behind(generator, monkeypatch):
    moments = cohort_moments(copies(generator, haars(generator, m=6), n=400, noise=0.7))
    spectral = synchronise(moments, all_pairs(6))
    monkeypatch.setattr(synchronising, "SPECTRAL_SIDE", 0)
    star = synchronise(moments, all_pairs(6))
    assert spectral.converged
    assert star.converged
    assert star.objective == pytest.approx(spectral.objective, abs=1e-9)  # 60 tokens would leave local optima
    assert spectral.iterations > 1
    monkeypatch.setattr(synchronising, "SWEEPS", 1)
    hasty = synchronise(moments, all_pairs(6))
    assert not hasty.converged
    assert hasty.objective < star.objective - 1e-6 < 1 - 1e-5


def test_for_two_members_it_is_scipys_procrustes(generator):
    x = unrelated(generator, m=2)
    oracle, nuclear = orthogonal_procrustes(*(unit(x).numpy()))
    frames = synchronise(cohort_moments(x), [(0, 1)])
    torch.testing.assert_close(frames.map(0, 1).weight, torch.from_numpy(oracle), rtol=0, atol=1e-9)
    assert frames.objective == pytest.approx(1, abs=1e-12)
    after = token_objective(unit(x) @ frames.turn)
    assert after == pytest.approx(2 - 2 * nuclear, abs=1e-10)


def procrustes_by_tokens(x: Tensor, generator, rounds: int = 150) -> Tensor:
    """Gower's procedure: every member turned to the mean of all, again and again, from random frames."""
    z = unit(x) @ haars(generator, len(x), x.shape[-1])
    for _ in range(rounds):
        mean = z.mean(0).numpy()
        z = torch.stack([each @ torch.from_numpy(orthogonal_procrustes(each.numpy(), mean)[0]) for each in z])
    return z


def test_procrustes_on_tokens_reaches_the_same_objective(generator):
    scale = torch.tensor([1.0, 30.0, 0.1, 1.0], dtype=torch.float64)[:, None, None]
    x = scale * copies(generator, haars(generator, d=6), n=80, noise=0.5)
    frames = synchronise(cohort_moments(x), all_pairs(4))
    found = token_objective(unit(x) @ frames.turn)
    # From random frames the determinants may be wrong for good: the best of several runs is the oracle.
    oracle = min(token_objective(procrustes_by_tokens(x, generator)) for _ in range(8))
    assert found == pytest.approx(oracle, rel=1e-6)
    assert found < 0.99 * token_objective(unit(x) @ haars(generator, d=6))


def test_no_small_turn_of_one_frame_is_better(generator):
    x = copies(generator, haars(generator), n=60, noise=1.0)
    frames = synchronise(cohort_moments(x), all_pairs(4))
    best = token_objective(unit(x) @ frames.turn)
    for step in range(20):
        A, turn = 0.03 * normal(generator, D, D), frames.turn.clone()
        turn[step % 4] @= torch.linalg.matrix_exp(A - A.T)
        assert token_objective(unit(x) @ turn) > best


def test_coordinates_and_scales_of_members_do_not_matter(generator):
    x, turns = copies(generator, haars(generator), noise=0.5), haars(generator)
    scale = torch.tensor([3.0, 1.0, 0.2, 9.0], dtype=torch.float64)[:, None, None]
    plain, turned = cohort_moments(x), cohort_moments(scale * x @ turns)
    torch.testing.assert_close(coherence(plain, 4, 5), coherence(turned, 4, 5), rtol=0, atol=1e-9)
    before, after = (synchronise(moments, all_pairs(4)) for moments in (plain, turned))
    assert after.objective == pytest.approx(before.objective, abs=1e-12)
    expected = turns.mT @ before.turn @ turns[0]
    torch.testing.assert_close(after.turn, expected, rtol=0, atol=1e-5)  # a flat optimum: gain < 1e-12


def test_without_noise_frames_score_like_pairwise_maps(generator):
    x = copies(generator, haars(generator))
    fit, scored = cohort_moments(x[:, :200]), cohort_moments(x[:, 200:])
    pairwise = r2_from_moments(orthogonal(fit), scored)
    frames = synchronise(fit, all_pairs(4))
    torch.testing.assert_close(synchronised_r2(frames, scored, all_pairs(4)), pairwise, rtol=0, atol=1e-10)


def test_with_few_noisy_tokens_frames_generalise_better_though_pairs_fit_better(generator):
    pairs, gains = all_pairs(8), []
    for _ in range(6):
        x = copies(generator, haars(generator, m=8), n=1040, noise=1.0)
        fit, scored = cohort_moments(x[:, :40]), cohort_moments(x[:, 40:])
        frames, pairwise = synchronise(fit, pairs), orthogonal(fit)
        gains.append(synchronised_r2(frames, scored, pairs) - r2_from_moments(pairwise, scored))
        assert (synchronised_r2(frames, fit, pairs) < r2_from_moments(pairwise, fit)).all()
    mean = torch.stack(gains).mean(1)  # of each cohort, whose pairs are not independent
    assert mean.mean() > 2 * mean.std() / math.sqrt(len(mean))


def test_maps_through_frames_agree_round_every_cycle_where_pairwise_maps_do_not(generator):
    x = copies(generator, haars(generator), n=40, noise=0.5)
    moments, pairs = cohort_moments(x), all_pairs(4)
    whole = torch.eye(D, dtype=torch.float64).repeat(4, 1, 1)
    consistent = cycle_coherence(synchronise(moments, pairs).maps(pairs).weight, pairs, whole)
    torch.testing.assert_close(consistent, torch.ones_like(consistent))
    assert cycle_coherence(orthogonal(moments).weight, pairs, whole).mean() < 0.99


def by_tokens(frames: Frames, x: Tensor, without: int) -> Tensor:
    """The mean configuration [n d] of the other members, token by token."""
    rest = [j for j in range(len(x)) if j != without]
    return ((x[rest] - frames.mean[:, None]) @ frames.turn).mean(0)


@pytest.mark.parametrize("fit_name", ["orthogonal", "affine"])
def test_leaving_one_out_is_the_computation_on_tokens(generator, fit_name):
    x = copies(generator, haars(generator), noise=0.7)
    fit, held_out = x[:, :300], x[:, 300:] + normal(generator, 4, 1, D)  # other means than the fit split
    pairs = all_pairs(4)
    found = leave_one_out_r2(cohort_moments(fit), cohort_moments(held_out), pairs, fit_name)
    for i in range(4):
        rest = [j for j in range(4) if j != i]
        frames = synchronise(cohort_moments(fit[rest]), all_pairs(3))
        source, target = by_tokens(frames, fit, i), fit[i]
        both = cohort_moments(torch.stack([source, target]))[0]
        fitted = orthogonal(both) if fit_name == "orthogonal" else affine(both)
        guess = fitted(by_tokens(frames, held_out, i))
        assert float(found[i]) == pytest.approx(explained_variance(guess, held_out[i]), abs=1e-9)


def test_the_consensus_has_the_moments_of_its_tokens(generator):
    x = copies(generator, haars(generator), noise=0.7)
    frames = synchronise(cohort_moments(x[[0, 1, 3], :200]), all_pairs(3))
    found = consensus(frames, cohort_moments(x[:, 200:]), all_pairs(4), without=2)
    expected = cohort_moments(torch.stack([by_tokens(frames, x[:, 200:], 2), x[2, 200:]]))[0]
    for name in MOMENTS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9)


def test_a_stranger_is_not_predicted_and_the_others_are(generator):
    x = copies(generator, haars(generator, m=5), n=2000, noise=0.1)
    x[3] = activations(generator, 2000, D)
    found = leave_one_out_r2(cohort_moments(x[:, :1000]), cohort_moments(x[:, 1000:]), all_pairs(5))
    assert found[3] < 0.05
    assert found[[0, 1, 2, 4]].min() > 0.85
    related = copies(generator, haars(generator, m=5), n=2000, noise=0.1)
    halves = cohort_moments(related[:, :1000]), cohort_moments(related[:, 1000:])
    assert leave_one_out_r2(*halves, all_pairs(5)).min() > 0.95


@pytest.mark.parametrize(
    "pairs", [[], [(0, 1), (1, 2)], [(0, 1), (0, 2), (2, 1)], [(0, 1), (0, 2), (1, 2), (1, 2)], [(1, 2)]]
)
def test_incomplete_pairs_are_refused(pairs):
    with pytest.raises(ValueError, match="every pair"):
        pair_table(pairs)


def test_cycles_of_two_members_are_refused(generator):
    moments = cohort_moments(unrelated(generator, m=2))
    with pytest.raises(ValueError, match="at least three"):
        coherence(moments, 2, 2)
    with pytest.raises(ValueError, match="at least three"):
        leave_one_out_r2(moments, moments, all_pairs(2))


def test_supports_that_do_not_fit_are_refused(generator):
    moments = cohort_moments(unrelated(generator))
    R, P = orthogonal(moments).weight, support_basis(moments, all_pairs(4), 3)
    for r in (0, D + 1):
        with pytest.raises(ValueError, match="1 to 12"):
            support_basis(moments, all_pairs(4), r)
    with pytest.raises(ValueError, match="orthonormal"):
        cycle_coherence(R, all_pairs(4), 1.1 * P)
    with pytest.raises(ValueError, match="3 supports"):
        cycle_coherence(R, all_pairs(4), P[:3])


def test_moments_that_cannot_be_synchronised_are_refused(generator):
    x, pairs = unrelated(generator), all_pairs(4)
    moments = cohort_moments(x)
    with pytest.raises(ValueError, match="with 6 pairs"):
        synchronise(moments[:5], pairs)
    with pytest.raises(ValueError, match="too few tokens"):
        synchronise(cohort_moments(x[:, :D]), pairs)
    x[2] = 1
    with pytest.raises(ValueError, match="no variance"):
        synchronise(cohort_moments(x), pairs)
    other = cohort_moments(unrelated(generator))
    mixed = PairMoments(*(torch.cat([getattr(moments, k)[:3], getattr(other, k)[3:]]) for k in MOMENTS))
    with pytest.raises(ValueError, match="not of the same tokens"):
        synchronise(mixed, pairs)


def test_frames_that_have_seen_the_left_out_member_are_refused(generator):
    moments = cohort_moments(unrelated(generator))
    with pytest.raises(ValueError, match="takes 3 frames"):
        consensus(synchronise(moments, all_pairs(4)), moments, all_pairs(4), without=0)


def test_a_fit_that_depends_on_the_gauge_is_refused(generator):
    moments = cohort_moments(unrelated(generator))
    with pytest.raises(Exception, match="shift"):
        leave_one_out_r2(moments, moments, all_pairs(4), "shift")
