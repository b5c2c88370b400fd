"""Which part of R is determined: standard errors against simulation, planted ranks, pinned subspaces and axes."""

import math

import pytest
import torch
from plants import activations, haar, normal
from scipy.stats import binom
from scipy.stats import t as student
from torch import Tensor

from polymorph.alignment.accumulator import MomentAccumulator, pair_moments
from polymorph.alignment.collect import SiteMoments, collect
from polymorph.alignment.components import r2_along
from polymorph.alignment.fit import orthogonal, r2_from_moments
from polymorph.alignment.moments import PairMoments, explained_variance
from polymorph.alignment.regression import affine
from polymorph.alignment.support import (
    DETERMINED_WITHIN,
    Support,
    block_sums,
    filled,
    numerical_rank,
    pinned_dimension,
    privileged_axes,
    restrict,
    split_half_angle,
    support,
    trace_on_support,
)
from polymorph.evidence.planted import SITE, Planted
from polymorph.evidence.planted_config import PlantedConfig

BLOCKS, LENGTH = 16, 8


def clustered(generator: torch.Generator, documents: int, *shape: int, share: float = 0.6) -> Tensor:
    """Unit normals [*batch tokens d] of which a share of the variance belongs to the whole document."""
    *batch, d = shape
    document = normal(generator, *batch, documents, d).repeat_interleave(LENGTH, -2)
    token = normal(generator, *batch, documents * LENGTH, d)
    return math.sqrt(share) * document + math.sqrt(1 - share) * token


def moments_of(left: Tensor, right: Tensor, document: Tensor | None = None) -> PairMoments:
    """Moments [blocks, pairs] of left[i] with right[i]; documents have `LENGTH` tokens unless they are given."""
    if document is None:
        document = torch.arange(left.shape[1]).div(LENGTH, rounding_mode="floor")
    accumulator = MomentAccumulator([(i, i) for i in range(len(left))], blocks=BLOCKS)
    accumulator.update(left, document, right=right)
    return accumulator.result()


def both_splits(left: Tensor, right: Tensor) -> tuple[PairMoments, PairMoments]:
    """The first half of the tokens as the fit split, the second as the eval split."""
    half = left.shape[1] // 2
    return moments_of(left[:, :half], right[:, :half]), moments_of(left[:, half:], right[:, half:])


def planted(kind: str, seed: int = 11, **settings: float) -> tuple[Planted, SiteMoments]:
    """A planted pair and its moments."""
    config = {"d": 16, "members": 2, "documents": 256, "tokens": 16, "seed": seed} | settings
    source = Planted(kind, PlantedConfig(**config))
    return source, collect(source, [(0, 1)], BLOCKS, 0, controls=False).at(SITE)


def found_in(kind: str, seed: int = 11, **settings: float) -> tuple[Planted, Support, int]:
    source, moments = planted(kind, seed, **settings)
    found = support(moments.fit, moments.eval)[0]
    return source, found, int(found.determined)


# Standard errors.


class Simulated:
    """400 replicates of one rotated pair at d = 8, with noise that tokens of a document have in common."""

    replicates, d = 400, 8

    def __init__(self, generator: torch.Generator, by_document: bool) -> None:
        scales = 2 * 1.3 ** -torch.arange(self.d, dtype=torch.float64)  # far enough apart to keep their order
        self.basis, self.R = haar(generator, self.d), haar(generator, self.d)
        splits = []
        for documents in (128, 64):  # the two splits are not of one size
            x = (clustered(generator, documents, self.replicates, self.d) * scales) @ self.basis
            y = x @ self.R + 0.3 * clustered(generator, documents, self.replicates, self.d)
            own = None if by_document else torch.arange(x.shape[1])
            splits.append(moments_of(x, y, own))
        fit, score = splits
        self.found = support(fit, score)
        turned = self.basis @ (orthogonal(fit.total()).weight - self.R) @ self.R.mT @ self.basis.mT
        self.error = (turned - turned.mT) / 2
        """Of every plane of the planted axes, the angle by which the fit missed it."""

    def coverage(self, i: int, j: int) -> int:
        """In how many replicates ± t·SE holds the true angle, which is 0."""
        half = float(student.ppf(0.975, BLOCKS - 1)) * self.found.standard_error[:, i, j]
        return int((self.error[:, i, j].abs() <= half).sum())


BAND = [int(binom.ppf(q, Simulated.replicates, 0.95)) for q in (0.0005, 0.9995)]
PLANES = [(0, 1), (1, 5), (2, 7), (6, 7)]  # registered: they do not depend on the draw


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return Simulated(torch.Generator().manual_seed(20240607), by_document=True)


@pytest.mark.parametrize(("i", "j"), PLANES)
def test_a_standard_error_is_the_spread_over_replicates(simulated, i, j):
    spread = float(simulated.error[:, i, j].square().mean().sqrt())
    claimed = float(simulated.found.standard_error[:, i, j].square().mean().sqrt())
    # the spread over 400 replicates is itself known to 1/√800 = 3.5 %; planes mix with their neighbours a little
    assert claimed == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize(("i", "j"), PLANES)
def test_an_interval_of_a_plane_covers_as_often_as_it_says(simulated, i, j):
    assert BAND[0] <= simulated.coverage(i, j) <= BAND[1]


def test_errors_that_forget_documents_are_too_small():
    """The opposite: tokens taken for independent; the design effect is 1 + 7 · 0.6² = 3.5."""
    forgetful = Simulated(torch.Generator().manual_seed(20240607), by_document=False)
    for i, j in PLANES:
        assert forgetful.coverage(i, j) < BAND[0]


def test_without_noise_every_plane_is_exact(generator):
    x = activations(generator, 640)[None]
    fit, score = both_splits(x, x @ haar(generator, 8))
    found = support(fit, score)
    planes = found.standard_error[0] - torch.diag(found.standard_error[0].diagonal())
    assert float(planes.abs().max()) < 1e-12
    assert found.determined.tolist() == [8]


def test_one_block_has_no_standard_error(generator):
    x = activations(generator, 100)[None]
    one = moments_of(x, x, torch.zeros(100, dtype=torch.long))
    with pytest.raises(ValueError, match="at least two blocks of documents, got 1"):
        support(one, one)


def test_the_support_of_one_pair_is_that_of_the_pair_alone(generator):
    x = torch.stack([activations(generator, 640) for _ in range(2)])
    y = torch.stack([x[0] @ haar(generator, 8), x[1]]) + 0.1 * normal(generator, 2, 640, 8)
    fit, score = both_splits(x, y)
    both, alone = support(fit, score)[1], support(fit[:, 1:], score[:, 1:])[0]
    assert torch.allclose(both.standard_error, alone.standard_error)
    assert torch.allclose(both.matrix, orthogonal(fit.total()).weight[1])
    assert int(both.determined) == int(alone.determined)


# The determined dimension.


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1, 0.15])
@pytest.mark.parametrize(("d", "rank"), [(12, 1), (16, 8), (24, 23), (24, 5)])
def test_the_determined_dimension_is_the_planted_rank(d, rank, noise):
    source, found, r = found_in("rotated_low_rank", d=d, rank=rank, noise=noise)
    assert abs(r - rank) <= 1
    missed = found.left[:, :r].mT @ (found.matrix - source.truth.rotation(0, 1))
    # what R misses of a direction is its noise beside the signal, over the root of the tokens
    assert float(missed.square().sum().div(r).sqrt()) < 1e-9 + noise
    if noise == 0:
        assert r == int(found.rank) == rank


@pytest.mark.parametrize("rank", [3, 8])
def test_without_noise_what_lies_beyond_the_rank_is_rounding(rank):
    """Strengths of 1e-17 have spreads of 1e-17: their ratio says nothing, and is not taken for an error."""
    _, found, r = found_in("rotated_low_rank", rank=rank, noise=0.0)
    assert float(found.strength[rank:].abs().max()) < 1e-12 * float(found.strength[0])
    assert bool(found.standard_error[rank:, rank:].isinf().all())
    assert bool(found.standard_error[:rank, :rank].isfinite().all())
    assert r == rank


@pytest.mark.parametrize("d", [12, 16, 32])
def test_unrelated_data_determine_nothing(d):
    for seed in range(8):
        _, moments = planted("unrelated", seed, d=d, documents=128)
        assert int(support(moments.fit, moments.eval).determined) == 0
        assert int(numerical_rank(moments.eval.total())) == d  # so the rank of the data would not have told


@pytest.mark.parametrize("seed", [1, 2])
def test_with_singular_values_of_the_fit_noise_would_look_determined(seed):
    """The opposite: the same spreads over σ_i + σ_j of the fit, which are as large as noise can make them."""
    _, moments = planted("unrelated", seed, d=64)
    U, singular, Vh = torch.linalg.svd(moments.fit.total().xy[0])
    G = U.mT @ block_sums(moments.eval)[:, 0] @ Vh.mT
    skew = G - G.mT
    spread = (skew - skew.mean(0)).square().sum(0).mul(BLOCKS / (BLOCKS - 1)).sqrt()
    strong = torch.triu_indices(32, 32, offset=1)
    naive = (spread / (singular[:, None] + singular))[*strong]
    held_out = support(moments.fit, moments.eval)[0].standard_error[*strong]
    assert float((naive < DETERMINED_WITHIN).double().mean()) > 0.8
    assert float((held_out < DETERMINED_WITHIN).double().mean()) == 0


def test_more_documents_determine_more():
    few, some, many = (found_in("rotated", noise=1.0, documents=n, tokens=2)[2] for n in (16, 128, 2048))
    assert few < some < many == 16


@pytest.mark.parametrize("mean", [0.0, 100.0, 1000.0])
def test_a_large_mean_in_float32_determines_nothing_more(generator, mean):
    x = clustered(generator, 1024, 4, share=0.3) @ haar(generator, 12)[:4]
    R = haar(generator, 12)
    sides = ((values + mean).float()[None] for values in (x, x @ R))
    fit, score = both_splits(*sides)
    found = support(fit, score)[0]
    assert int(found.determined) == 4
    assert mean > 100 or int(found.rank) == 4  # from there on, rounding passes for variance


# Split halves.


def test_halves_agree_where_r_is_determined():
    for rank in (3, 16):
        _, moments = planted("rotated_low_rank", rank=rank, noise=0.05)
        found = support(moments.fit, moments.eval)[0]
        assert float(split_half_angle(moments.fit[:, 0], found, rank)) < 0.1


def test_halves_of_unrelated_data_have_nothing_to_do_with_one_another():
    _, moments = planted("unrelated", d=32)
    found = support(moments.fit, moments.eval)[0]
    # ‖R_1 − R_2‖² = 2d − 2 tr R_1ᵀR_2, whose trace is 0 ± 1: the root over d is √2 ± 0.022
    assert float(split_half_angle(moments.fit[:, 0], found, 32)) == pytest.approx(math.sqrt(2), abs=0.11)


def test_beyond_the_rank_halves_disagree():
    _, moments = planted("rotated_low_rank", rank=4, noise=0.05)
    found = support(moments.fit, moments.eval)[0]
    assert float(split_half_angle(moments.fit[:, 0], found, 16)) > 0.8


# Pinned subspaces and axes.


@pytest.mark.parametrize(("d", "k"), [(12, 2), (16, 1), (16, 5), (24, 8), (24, 12), (32, 31)])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_pinned_dimensions_are_counted(d, k, noise):
    _, found, r = found_in("pinned", d=d, pinned=k, noise=noise)
    assert abs(pinned_dimension(found, r) - k) <= 1


@pytest.mark.parametrize(("d", "k"), [(12, 3), (16, 1), (16, 8), (24, 20), (32, 8)])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.15])
def test_privileged_axes_are_counted(d, k, noise):
    _, found, r = found_in("privileged", d=d, axes=k, noise=noise)
    assert abs(privileged_axes(found, r) - k) <= 1


@pytest.mark.parametrize("kind", ["rotated", "reflected"])
def test_a_haar_matrix_has_neither(kind):
    """With det R = −1 and d even, the eigenvalue 1 is always there: one dimension is truly pinned."""
    pinned, axes = [], []
    for d in (16, 24, 32):
        for seed in range(10):
            _, found, r = found_in(kind, seed, d=d, documents=128)
            pinned.append(pinned_dimension(found, r))
            axes.append(privileged_axes(found, r))
    # the least of d/2 angles is uniform up to 2π/d, and an error of 0.001 rad cannot tell 0.002 from 0
    assert sum(k > 1 for k in pinned) <= 2
    assert axes == [0] * 30


@pytest.mark.parametrize("rank", [1, 4, 11])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_of_a_low_rank_identity_all_that_is_determined_is_pinned(rank, noise):
    _, found, r = found_in("same_basis_low_rank", rank=rank, noise=noise)
    assert pinned_dimension(found, r) == r == rank
    assert float(trace_on_support(found, r)) == pytest.approx(rank, abs=0.05 * rank)


def test_of_a_low_rank_rotation_nothing_is_pinned():
    _, found, r = found_in("rotated_low_rank", d=32, rank=8)
    assert pinned_dimension(found, r) == 0
    assert abs(float(trace_on_support(found, r))) < 4  # N(0, r/d) under Haar: four standard deviations are 2


def test_nothing_is_pinned_where_nothing_is_determined():
    _, found, r = found_in("unrelated")
    assert (pinned_dimension(found, r), privileged_axes(found, r)) == (0, 0)


# Moments on the support, and along directions.


def test_restricted_moments_are_those_of_projected_tokens(generator):
    x = activations(generator, 640)[None]
    y = x @ haar(generator, 8) + 0.2 * normal(generator, 1, 640, 8) - 4
    fit, score = both_splits(x, y)
    found = support(fit, score)[0]
    half = slice(320, None)
    wanted = moments_of(x[:, half] @ found.left[:, :3], y[:, half] @ found.right[:, :3])[:, 0]
    restricted = restrict(score[:, 0], found, 3)
    for part in ("n", "mean_x", "mean_y", "xx", "yy", "xy"):
        assert torch.allclose(getattr(restricted, part), getattr(wanted, part), rtol=1e-10, atol=1e-9)
    identity = orthogonal(restrict(fit[:, 0], found, 3).total()).weight  # y's coordinates are images of x's
    assert torch.allclose(identity, torch.eye(3, dtype=torch.float64), atol=1e-10)


def test_sums_of_blocks_add_up_to_the_total(generator):
    x = torch.stack([activations(generator, 200), activations(generator, 200)])
    y = x.flip(0) + normal(generator, 2, 200, 8)
    document = torch.randint(0, 11, (200,), generator=generator)  # five blocks stay empty
    moments = moments_of(x, y, document)
    assert filled(moments).n.shape[0] == len(block_sums(moments)) == 11
    assert torch.allclose(block_sums(moments).sum(0), moments.total().xy, rtol=1e-12)
    assert not torch.allclose(moments.xy.sum(0), moments.total().xy, rtol=1e-6)  # without moving the means


def test_r2_along_directions_is_that_of_tokens(generator):
    x, z = activations(generator, 300), activations(generator, 200)
    R, bend = haar(generator, 8), normal(generator, 8, 8)
    y, w = (side @ R + 0.3 * side @ bend + 0.5 * normal(generator, len(side), 8) + 1 for side in (x, z))
    axes = haar(generator, 8)[:, :5]
    for fit in (orthogonal, affine):
        fitted = fit(pair_moments(x, y))
        values = r2_along(fitted, pair_moments(z, w), axes)
        wanted = [explained_variance(fitted(z) @ axis[:, None], w @ axis[:, None]) for axis in axes.mT]
        assert values.tolist() == pytest.approx(wanted, abs=1e-10)


def test_weighted_by_variance_the_directions_have_the_r2_of_the_map(generator):
    x = activations(generator, 300)
    moments = pair_moments(x, x @ haar(generator, 8) + normal(generator, 300, 8))
    fitted = orthogonal(pair_moments(x.flip(0), x))  # a poor map: R² is negative
    axes = torch.linalg.eigh(moments.yy).eigenvectors
    variance = (axes * (moments.yy @ axes)).sum(0)
    mean = float((variance * r2_along(fitted, moments, axes)).sum() / variance.sum())
    assert mean == pytest.approx(float(r2_from_moments(fitted, moments)), abs=1e-12)
    assert mean < 0


def test_a_direction_without_variance_has_no_r2(generator):
    x = activations(generator, 100)
    x[:, 3] = 0
    moments = pair_moments(x, x)
    with pytest.raises(ValueError, match="no variance"):
        r2_along(affine(moments), moments, torch.eye(8, dtype=torch.float64))
