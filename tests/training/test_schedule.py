import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polymorph.training.config import CheckpointsConfig, OptimizerConfig
from polymorph.training.schedule import checkpoint_steps, learning_rate

PAPER, STEPS = OptimizerConfig(), 60_000


def rate(step: int) -> float:
    return learning_rate(step, PAPER, STEPS)


def test_the_papers_rate_at_the_steps_that_name_it():
    assert rate(0) == 0.0
    assert rate(1) == pytest.approx(3e-3 / 500)
    assert rate(250) == pytest.approx(1.5e-3)
    assert rate(500) == pytest.approx(3e-3)
    half = 500 + (STEPS - 500) // 2
    assert rate(half) == pytest.approx(3e-3 * (1 + 0.02) / 2)
    assert rate(STEPS) == pytest.approx(0.02 * 3e-3)


def test_the_rate_rises_to_its_only_peak_and_falls_to_the_end():
    rates = [rate(step) for step in range(0, STEPS + 1, 50)]
    peak = rates.index(max(rates))
    assert peak == 500 // 50
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))


def test_the_rate_does_not_jump():
    """Largest change of a step: the warm-up's slope, which is steeper than the cosine's."""
    for step in (498, 499, 500, 501, STEPS - 1):
        assert abs(rate(step + 1) - rate(step)) <= 3e-3 / 500 * (1 + 1e-9)


def test_without_a_warm_up_the_peak_is_at_the_start():
    assert learning_rate(0, OptimizerConfig(warmup_steps=0), 10) == pytest.approx(3e-3)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 300), st.integers(1, 300), st.floats(0, 1), st.integers(0, 700))
def test_every_rate_is_finite_and_between_nothing_and_the_peak(warmup, steps, ratio, step):
    config = OptimizerConfig(lr=1.0, warmup_steps=warmup, final_lr_ratio=ratio)
    value = learning_rate(step, config, steps)
    assert math.isfinite(value)
    assert 0 <= value <= 1
    if step >= max(warmup + 1, steps):
        assert value == pytest.approx(ratio)


def test_the_papers_checkpoints():
    powers = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert checkpoint_steps(CheckpointsConfig(), STEPS) == [0, *powers, *range(2000, 60_001, 2000)]


@pytest.mark.parametrize(
    ("powers_until", "every", "max_steps", "wanted"),
    [
        (1024, 2000, 5, [0, 1, 2, 4, 5]),
        (1024, 2000, 1, [0, 1]),
        (0, 3, 10, [0, 3, 6, 9, 10]),
        (1, 100, 10, [0, 1, 10]),
        (7, 5, 10, [0, 1, 2, 4, 5, 10]),  # 7 is no power
        (8, 4, 12, [0, 1, 2, 4, 8, 12]),  # nothing twice
    ],
)
def test_other_cadences(powers_until, every, max_steps, wanted):
    config = CheckpointsConfig(powers_until=powers_until, every=every)
    assert checkpoint_steps(config, max_steps) == wanted


def test_further_steps_are_published_too_once_each_and_none_after_the_end():
    config = CheckpointsConfig(powers_until=4, every=10, also=[7, 10, 99])
    assert checkpoint_steps(config, 25) == [0, 1, 2, 4, 7, 10, 20, 25]


@pytest.mark.parametrize(
    ("also", "reason"), [([0], "from 1 on"), ([5, -3], "from 1 on"), ([7, 7], "repeated")]
)
def test_further_steps_that_cannot_be_are_refused(also, reason):
    with pytest.raises(ValueError, match=reason):
        CheckpointsConfig(also=also)
