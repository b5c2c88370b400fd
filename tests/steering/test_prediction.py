"""Predictors and regressions on planted geometry."""

import math

import pytest
import torch

from polymorph.alignment.haar import haar
from polymorph.steering.prediction import Table, cosine, logistic_slope, pinned_share, spearman


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=draws(seed), dtype=torch.float64)


def test_the_share_that_is_pinned_is_that_of_the_subspace_that_r_leaves_alone():
    d, k = 20, 6
    R = torch.eye(d, dtype=torch.float64)
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    R[k:, k:] = torch.block_diag(*[quarter] * ((d - k) // 2))  # turns every plane by 90°
    basis = haar(d, 1, draws(0))[0]
    R = basis.mT @ R @ basis
    for seed in range(5):
        v = normal(seed, d)
        inside = (basis @ v)[:k].square().sum() / v.square().sum()
        assert pinned_share(R, v) == pytest.approx(float(inside), abs=1e-10)
    eye = torch.eye(d, dtype=torch.float64)
    assert pinned_share(eye, normal(6, d)) == pytest.approx(1)
    assert pinned_share(-eye, normal(6, d)) == 0
    assert cosine(normal(6, d), -3 * normal(6, d)) == pytest.approx(-1)


def test_ranks_that_agree_correlate_whatever_the_scale():
    x = normal(0, 30)
    assert spearman(x, x.exp()) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
    assert math.isnan(spearman(x, torch.ones(30, dtype=torch.float64)))


def test_a_slope_of_log_odds_is_found_and_shrunk_where_it_would_be_infinite():
    x = normal(1, 4000)
    z = (x - x.mean()) / x.std()
    works = torch.rand(4000, generator=draws(2), dtype=torch.float64) < torch.sigmoid(0.5 + 1.3 * z)
    (slope,) = logistic_slope(x, works, torch.ones(1, 4000, dtype=torch.float64))
    assert float(slope) == pytest.approx(1.3, abs=0.15)  # three standard errors
    apart = logistic_slope(x[:40], x[:40] > x[:40].median(), torch.ones(1, 40, dtype=torch.float64))
    assert 2 < float(apart) < 10
    # the penalised likelihood has its maximum there
    for other in (slope - 0.3, slope + 0.3):
        assert _fit(z, works, float(slope)) > _fit(z, works, float(other))


def _fit(z, works, slope):
    odds = torch.linspace(-1, 2, 301, dtype=torch.float64)[:, None] + slope * z
    likelihood = torch.where(works, odds, -odds).sigmoid().log().sum(1)
    return float((likelihood - slope**2 / (2 * 2.5**2)).max())


def planted(seed: int, slope: float, contrasts: int = 50, pairs: int = 4) -> Table:
    """Every contrast has a quality of its own, which its predictor shows and its pairs share."""
    quality = normal(seed, contrasts, 1).expand(contrasts, pairs)
    predictor = quality + 0.3 * normal(seed + 1, contrasts, pairs)
    outcome = slope * quality + normal(seed + 2, contrasts, 1) + 0.2 * normal(seed + 3, contrasts, pairs)
    outcome[0, 0] = torch.nan
    return Table(predictor, outcome, outcome > 0, draws(seed))


def test_a_predictor_that_tells_is_told_from_one_that_does_not():
    told = planted(0, slope=2.0)
    value, low, high = told.rank_correlation()
    _, null_low, null_high = told.permuted()
    assert null_high < low < value < high
    slope, low, high = told.slope()
    assert 0 < low < slope < high
    value, _, _ = planted(10, slope=0.0).rank_correlation()
    _, null_low, null_high = planted(10, slope=0.0).permuted()
    assert null_low < value < null_high


def test_intervals_are_over_contrasts_and_not_over_their_pairs():
    """What pairs share makes the null as wide as 50 contrasts make it, and not 200 cases."""
    _, low, high = planted(20, slope=0.0).permuted()
    assert (high - low) / 2 > 1.5 * 1.96 / math.sqrt(200)


def test_the_null_of_a_useless_predictor_is_left_as_rarely_as_it_should():
    outside = 0
    for seed in range(0, 160, 4):
        table = planted(100 + seed, slope=0.0)
        value, _, _ = table.rank_correlation()
        _, low, high = table.permuted()
        outside += not low <= value <= high
    assert outside <= 7  # of 40 at 5 %, 99.9 % binomial


def test_where_all_work_there_is_no_slope_and_the_share_says_so():
    table = planted(0, slope=1.0)
    works = Table(table.predictor, table.outcome, torch.ones_like(table.works), draws(0))
    assert works.slope() is None
    assert works.share() == (1.0, 1.0, 1.0)
    share, low, high = table.share()
    assert low < share < high
    constant = Table(torch.ones_like(table.predictor), table.outcome, table.works, draws(0))
    assert constant.slope() is None
    assert not constant.varies
    assert table.varies
