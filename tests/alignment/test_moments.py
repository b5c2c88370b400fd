import numpy as np
import pytest
import torch
from plants import activations, normal

from polymorph.alignment.accumulator import MomentAccumulator, pair_moments
from polymorph.alignment.moments import (
    PairMoments,
    explained_variance,
    explained_variance_from_sums,
    participation_ratio,
)

PAIRS = [(0, 1), (0, 2), (2, 1)]


def members(generator: torch.Generator, n: int = 700, mean: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.stack([activations(generator, n, 5) for _ in range(3)]) + mean
    return x, torch.arange(n) // 20


def by_hand(x: torch.Tensor, y: torch.Tensor) -> PairMoments:
    """Two passes of numpy, in extended precision."""
    a, b = (np.asarray(v, dtype=np.longdouble) for v in (x, y))
    ca, cb = a - a.mean(0), b - b.mean(0)
    parts = (a.mean(0), b.mean(0), ca.T @ ca, cb.T @ cb, ca.T @ cb)
    means = (torch.tensor(p.astype(np.float64)) for p in parts)
    return PairMoments(torch.tensor(float(len(a)), dtype=torch.float64), *means)


def assert_same(found: PairMoments, wanted: PairMoments, **tolerance: float) -> None:
    for name in ("n", "mean_x", "mean_y", "xx", "yy", "xy"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), **tolerance)


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_streamed_moments_are_those_of_two_passes_whatever_the_mean(generator, mean):
    x, document = members(generator, mean=mean)
    accumulator = MomentAccumulator(PAIRS, blocks=4)
    for tokens in torch.arange(700).split(130):
        accumulator.update(x[:, tokens], document[tokens])
    for at, (i, j) in enumerate(PAIRS):
        # rounding of an entry of size `mean` is mean · 2e-16; the sums have 700 terms of size about 1
        tolerance = 1e-10 + 700 * mean * 1e-14
        assert_same(accumulator.total()[at], by_hand(x[i], x[j]), rtol=1e-12, atol=tolerance)


def test_uncentred_sums_would_not_pass_at_that_mean(generator):
    x = members(generator, mean=1e6)[0][0]
    naive = x.T @ x - len(x) * torch.outer(x.mean(0), x.mean(0))
    assert (naive - by_hand(x, x).xx).abs().max() > 1e-3


def test_blocks_hold_the_documents_of_their_remainder(generator):
    x, document = members(generator)
    accumulator = MomentAccumulator(PAIRS, blocks=4)
    accumulator.update(x, document)
    mine = document % 4 == 3
    assert_same(accumulator.result()[3, 1], by_hand(x[0, mine], x[2, mine]), rtol=1e-12, atol=1e-10)


def test_order_of_tokens_and_chunks_does_not_matter(generator):
    x, document = members(generator)
    shuffled = torch.randperm(700, generator=generator)
    one, two = MomentAccumulator(PAIRS, 4), MomentAccumulator(PAIRS, 4)
    one.update(x, document)
    for tokens in shuffled.split(90):
        two.update(x[:, tokens], document[tokens])
    assert_same(one.result(), two.result(), rtol=1e-11, atol=1e-10)


def test_merging_is_accumulating_both(generator):
    x, document = members(generator)
    parts = []
    for tokens in (slice(0, 300), slice(300, 700)):
        accumulator = MomentAccumulator(PAIRS, 4)
        accumulator.update(x[:, tokens], document[tokens])
        parts.append(accumulator.total())
    assert_same(parts[0].merge(parts[1])[0], by_hand(x[0], x[1]), rtol=1e-12, atol=1e-10)


def test_leave_one_out_is_accumulating_the_others(generator):
    x, document = members(generator, mean=1e4)
    accumulator = MomentAccumulator(PAIRS, blocks=4)
    accumulator.update(x, document)
    others = document % 4 != 2
    found = accumulator.result().leave_one_out()[2, 0]
    assert_same(found, by_hand(x[0, others], x[1, others]), rtol=1e-11, atol=1e-8)


def test_an_empty_block_changes_nothing(generator):
    x, document = members(generator)
    few, many = MomentAccumulator(PAIRS, 5), MomentAccumulator(PAIRS, 64)
    few.update(x, document)
    many.update(x, document)
    assert (many.result().n == 0).any()
    assert_same(few.total(), many.total(), rtol=1e-11, atol=1e-10)


def test_swap_is_the_pair_the_other_way_round(generator):
    x, y = activations(generator, 100, 5), activations(generator, 100, 3)
    assert_same(pair_moments(x, y).swap(), pair_moments(y, x), rtol=1e-12, atol=1e-10)


def test_a_separate_right_side_is_the_same_code(generator):
    x, document = members(generator)
    one, two = MomentAccumulator(PAIRS, 4), MomentAccumulator(PAIRS, 4)
    one.update(x, document)
    two.update(x, document, right=x.clone())
    assert_same(one.result(), two.result(), rtol=1e-12, atol=1e-10)


def test_results_are_not_changed_by_later_updates(generator):
    x, document = members(generator)
    accumulator = MomentAccumulator(PAIRS, 4)
    accumulator.update(x[:, :300], document[:300])
    before = accumulator.result()
    kept = before[:]
    accumulator.update(x[:, 300:], document[300:])
    assert_same(before, kept, rtol=0, atol=0)
    assert float(accumulator.result().n.sum()) > float(before.n.sum())


def test_what_cannot_be_accumulated_is_refused(generator):
    x, document = members(generator)
    accumulator = MomentAccumulator(PAIRS, 4)
    with pytest.raises(ValueError, match="no tokens"):
        accumulator.result()
    with pytest.raises(ValueError, match="not finite"):
        accumulator.update(x.index_fill(2, torch.tensor([1]), torch.nan), document)
    with pytest.raises(ValueError, match="outside the 2"):
        accumulator.update(x[:2], document)
    accumulator.update(x, document)
    with pytest.raises(ValueError, match="members or d changed"):
        accumulator.update(x[:, :, :4], document)
    with pytest.raises(ValueError, match="separate right"):
        accumulator.update(x, document, right=x)
    with pytest.raises(Exception, match="document"):
        accumulator.update(x, document[:-1])


def test_moments_of_wrong_shapes_are_refused(generator):
    good = pair_moments(activations(generator), activations(generator))
    with pytest.raises(Exception, match="mean_x"):
        PairMoments(good.n, good.mean_x[:-1], good.mean_y, good.xx, good.yy, good.xy)


def test_explained_variance_has_its_anchors(generator):
    y = activations(generator) + 50
    assert explained_variance(y, y) == 1
    assert explained_variance(y.mean(0).expand_as(y), y) == pytest.approx(0, abs=1e-12)
    assert explained_variance(y.mean(0).expand_as(y) + 1, y) < -0.1
    assert explained_variance(y + 100, y) < -100


def test_explained_variance_is_not_fooled_by_a_large_mean(generator):
    y = activations(generator) + 50 * torch.arange(8)
    predict_mean = y.mean(0).expand_as(y)
    over_all_entries = 1 - (y - predict_mean).square().mean() / y.var()
    assert over_all_entries > 0.9  # the convention that we do not use
    assert explained_variance(predict_mean, y) == pytest.approx(0, abs=1e-12)


def test_explained_variance_refuses_what_has_none(generator):
    constant = torch.full((50, 3), 0.1, dtype=torch.float64)
    with pytest.raises(ValueError, match="no variance"):
        explained_variance(constant + normal(generator, 50, 3), constant)
    with pytest.raises(ValueError, match="no variance"):
        explained_variance_from_sums(torch.ones(2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="not finite"):
        explained_variance(constant * torch.nan, normal(generator, 50, 3))
    with pytest.raises(Exception, match=r"target|shape"):
        explained_variance(normal(generator, 50, 1), normal(generator, 50, 3))


def test_participation_ratio_counts_equal_dimensions(generator):
    covariance = torch.diag(torch.tensor([2.0, 2.0, 2.0, 0.0, 0.0], dtype=torch.float64))
    assert float(participation_ratio(covariance)) == pytest.approx(3)
    uneven = torch.diag(torch.tensor([100.0, 1.0, 1.0], dtype=torch.float64))
    assert 1 < float(participation_ratio(uneven)) < 1.1
    with pytest.raises(ValueError, match="without variance"):
        participation_ratio(torch.zeros(3, 3))
