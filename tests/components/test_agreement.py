"""Assignments of heads: what is planted is found, and what is random is not."""

import pytest
import torch
from scipy.stats import kendalltau, spearmanr

from polymorph.components.agreement import (
    MOST_ORDERS,
    Slots,
    by_best,
    by_name,
    concordance,
    leave_one_out,
    pearson,
    spearman,
)
from polymorph.components.cumulative import Curves, assigned, correlation, ranking, sizes_of, sums
from polymorph.components.naming import Component


def slots(layers: int = 2, heads: int = 4) -> Slots:
    found = []
    for layer in range(layers):
        found += [Component(f"L{layer}H{h}", "head", layer, "z", h) for h in range(heads)]
        found.append(Component(f"L{layer}MLP", "mlp", layer, "out"))
    return Slots.of(found)


def test_statistics_are_those_of_scipy(generator):
    x, y = torch.randn(2, 10, generator=generator, dtype=torch.float64)
    y = y + x
    assert float(pearson(x, y)) == pytest.approx(float(torch.corrcoef(torch.stack([x, y]))[0, 1]))
    tied = x.round()
    assert float(spearman(tied, y)) == pytest.approx(spearmanr(tied, y).statistic)
    assert float(concordance(x, y)) == pytest.approx((kendalltau(x, y).statistic + 1) / 2)
    rest = torch.stack([pearson(x[i != torch.arange(10)], y[i != torch.arange(10)]) for i in range(10)])
    assert leave_one_out(x, y) == pytest.approx(rest)


def test_one_outlier_makes_a_correlation_that_leaving_it_out_takes_away(generator):
    x, y = torch.randn(2, 10, generator=generator, dtype=torch.float64)
    x[3], y[3] = 30, 30
    assert float(pearson(x, y)) > 0.95
    left = leave_one_out(x, y)
    assert float(left[3]) < 0.7
    assert float(left.min()) == float(left[3])


def test_permuted_heads_are_a_low_r_by_name_and_one_by_the_best_assignment(generator):
    places = slots()
    source = torch.tensor([8.0, 0.1, 0.5, 0.2, 3.0, 0.3, 5.0, 0.0, 0.6, 1.0], dtype=torch.float64)
    target = source[torch.tensor([1, 2, 3, 0, 4, 7, 5, 8, 6, 9])]
    named = by_name(source, target, places, generator)
    best = by_best(source, target, places, generator)
    assert named.value < 0.3
    assert named.p_value > 0.2
    assert best.value == pytest.approx(1)
    assert torch.equal(source[best.order], target)
    assert (
        best.p_value < 0.04
    )  # one of the 70 ways to deal eight heads out to two layers, and as many drawn again
    same = by_name(source, source, places, generator)
    assert same.value == pytest.approx(1)
    assert same.p_value == pytest.approx(1 / 576)


def test_heads_in_the_wrong_layer_are_no_match(generator):
    """The opposite: the same effects, with the large ones in the other layer. The best assignment has a high r."""
    places = slots()
    source = torch.tensor([8.0, 7, 6, 5, 0, 1, 0.9, 0.8, 0.7, 0], dtype=torch.float64)
    swapped = torch.tensor([1, 0.9, 0.8, 0.7, 0, 8.0, 7, 6, 5, 0], dtype=torch.float64)
    best = by_best(source, swapped, places, generator)
    assert best.p_value > 0.5


@pytest.mark.parametrize("test", [by_name, by_best])
def test_p_values_of_unrelated_members_are_uniform(test, generator):
    """200 pairs of exponential effects: the 99.9 % binomial band of a share of 0.1 is 0.04 to 0.18."""
    places, found = slots(), []
    for _ in range(200):
        x, y = torch.empty(2, 10, dtype=torch.float64).exponential_(generator=generator)
        x[[4, 9]] = y[[4, 9]] = 1.0
        found.append(test(x, y, places, generator).p_value)
    p = torch.tensor(found)
    assert 0.04 <= float((p <= 0.1).double().mean()) <= 0.18
    assert float(p.mean()) == pytest.approx(0.5, abs=0.07)  # 3.3 standard errors of 1/√(12 · 200)


def test_the_best_assignment_is_the_best_of_all(generator):
    places = slots(heads=3)
    x, y = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    every = places.within_layers(generator)
    assert len(every) == places.orders == 36
    assert float(pearson(x[places.best(x, y)], y)) == pytest.approx(float(pearson(x[every], y).max()))


def test_many_orders_are_drawn_and_few_are_no_test(generator):
    wide = slots(heads=8)
    drawn = wide.within_layers(generator)
    assert drawn.shape == (MOST_ORDERS + 1, 18)
    assert torch.equal(drawn[0], torch.arange(18))
    assert bool((drawn[:, [8, 17]] == torch.tensor([8, 17])).all())  # MLPs have names
    assert bool((drawn[:, :8].sort(-1).values == torch.arange(8)).all())
    narrow = slots(heads=2)
    x, y = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    assert by_name(x, y, narrow, generator).p_value is None
    assert by_best(x, y, narrow, generator).p_value is None


def test_curves_of_an_additive_model_are_predicted_and_gains_run_from_random_to_own(generator):
    """Effects that add up: the prediction is exact, the own ranking gains 1, random ones 0, the reverse less."""
    effects = torch.tensor([5.0, 3, 2, 1, 0.5, 0.1], dtype=torch.float64)[:, None].expand(6, 4)
    sizes, own = sizes_of(6), ranking(effects[:, 0])
    orders = [torch.randperm(6, generator=generator) for _ in range(400)]
    random = torch.stack([sums(effects, order, sizes) for order in orders])
    curves = Curves(random, sums(effects, own, sizes))
    assert curves.gain(curves.own) == pytest.approx(torch.ones(4))
    assert float(curves.gain(random).mean()) == pytest.approx(0, abs=1e-9)
    assert float(curves.gain(sums(effects, own.flip(0), sizes))[0]) < -0.8
    assert float(curves.distance(curves.own).max()) == 0
    assert correlation(sums(effects, own, sizes), curves.own) == pytest.approx(torch.ones(4))
    flat = Curves(torch.ones(3, 6, 4), torch.ones(6, 4))
    assert flat.gain(curves.own) is None


def test_components_that_stand_in_for_one_another_are_no_sum():
    """The opposite: two of them do the same, so that each alone is worth little, and both together everything."""
    effects = torch.tensor([0.2, 0.2, 1.0, 0.5], dtype=torch.float64)[:, None].expand(4, 2)
    order = ranking(effects[:, 0])
    assert order.tolist() == [2, 3, 0, 1]
    curve = torch.tensor([1.0, 1.5, 1.7, 9.0], dtype=torch.float64)[:, None].expand(4, 2)
    assert float(correlation(sums(effects, order, sizes_of(4)), curve)[0]) < 0.8


def test_an_assigned_ranking_has_the_heads_of_a_layer_in_the_order_of_their_effects():
    places = slots(heads=3)
    effects = torch.tensor([1.0, 2, 3, 0, 6, 5, 4, 0], dtype=torch.float64)
    order = assigned(torch.arange(8), places, effects).tolist()
    assert order == [2, 1, 0, 3, 4, 5, 6, 7]


def test_long_curves_are_known_at_a_dozen_sizes():
    sizes = sizes_of(60)
    assert (len(sizes), sizes[0], sizes[-1]) == (12, 1, 60)
    assert sizes == sorted(set(sizes))
    assert sizes_of(4) == [1, 2, 3, 4]
