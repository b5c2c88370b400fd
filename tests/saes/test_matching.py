"""Laws of matching: what a rotation and a permutation leave, and what chance gives."""

from itertools import permutations

import pytest
import torch

from polymorph.alignment.haar import haar
from polymorph.saes.matching import (
    assigned,
    carried,
    cosines,
    joint,
    nearest,
    random_directions,
    unit,
)

F, D = 60, 12


@pytest.fixture
def dictionary(generator):
    return torch.randn(F, D, generator=generator, dtype=torch.float64)


@pytest.fixture
def turn(generator):
    return haar(D, 1, generator)[0]


def chance(generator, f=F, g=F, d=D):
    draws = [random_directions(f, g, d, generator) for _ in range(40)]
    means = torch.tensor([nearest(draw).mean for draw in draws])
    return float(means.min()), float(means.max())


def test_a_rotated_copy_matches_through_r_and_at_chance_without(dictionary, turn, generator):
    other = 3 * dictionary @ turn
    mapped, raw = cosines(carried(dictionary, turn), other), cosines(dictionary, other)
    assert (nearest(mapped).mean, assigned(mapped).mean) == (pytest.approx(1), pytest.approx(1))
    assert (nearest(mapped).share, assigned(mapped).share) == (1, 1)
    low, high = chance(generator)
    assert low - 0.02 < nearest(raw).mean < high + 0.02


def test_permuted_features_still_match(dictionary, turn, generator):
    other = (dictionary @ turn)[torch.randperm(F, generator=generator)]
    found = cosines(carried(dictionary, turn), other)
    assert assigned(found).mean == pytest.approx(1)
    assert float(found.diagonal().mean()) < 0.5  # the opposite: in the order given they do not


def test_unrelated_dictionaries_match_as_random_ones(dictionary, generator):
    low, high = chance(generator)
    found = nearest(cosines(dictionary, torch.randn(F, D, generator=generator, dtype=torch.float64)))
    assert low - 0.02 < found.mean < high + 0.02
    assert high < 0.9


def test_more_features_match_more_by_chance(generator):
    """So the null of all features bounds that of the live ones."""
    few, many = (nearest(random_directions(f, f, D, generator)).mean for f in (20, 200))
    assert few < many - 0.05


def test_the_assignment_is_the_best_of_all(generator):
    similarity = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    best = max(sum(float(similarity[i, j]) for i, j in enumerate(order)) for order in permutations(range(5)))
    assert assigned(similarity).mean == pytest.approx(best / 5)
    assert assigned(similarity.mT).mean == pytest.approx(best / 5)


def test_two_features_may_be_nearest_to_one_and_not_assigned_to_it():
    similarity = torch.tensor([[1.0, 0.0], [0.9, 0.2]])
    assert nearest(similarity).mean == pytest.approx(0.95)
    assert nearest(similarity).share == 1
    assert assigned(similarity).mean == pytest.approx(0.6)
    assert assigned(similarity).share == 0.5


def test_numbers_of_features_may_differ(dictionary):
    found = cosines(dictionary, dictionary[:7])
    assert assigned(found).mean == pytest.approx(1)
    assert nearest(found.mT).mean == pytest.approx(1)
    assert nearest(found).mean < 0.9


def test_a_direction_of_length_0_is_like_nothing(dictionary):
    dictionary[3] = 0
    found = cosines(dictionary, dictionary)
    assert float(found[3].abs().max()) == 0
    assert float(found[4, 4]) == pytest.approx(1)


def test_the_joint_cosine_is_the_mean_of_both(generator):
    a, b, c, d = torch.randn(4, F, D, generator=generator, dtype=torch.float64)
    mean = (cosines(a, b) + cosines(c, d)) / 2
    torch.testing.assert_close(cosines(joint(a, c), joint(b, d)), mean)
    assert not torch.allclose(cosines(a, b), mean)


def test_what_reads_moves_with_the_inverse_transpose(dictionary, turn, generator):
    """For an orthogonal weight that is the weight itself, and for another one it is not."""
    x = torch.randn(30, D, generator=generator, dtype=torch.float64)
    bent = turn + 0.3 * torch.randn(D, D, generator=generator, dtype=torch.float64)
    read = x @ dictionary.mT
    torch.testing.assert_close(x @ turn @ carried(dictionary, turn).mT, read)
    torch.testing.assert_close(x @ bent @ carried(dictionary, torch.linalg.inv(bent).mT).mT, read)
    assert not torch.allclose(x @ bent @ carried(dictionary, bent).mT, read)


def test_unit_directions_have_length_1(dictionary):
    torch.testing.assert_close(unit(dictionary).norm(dim=-1), torch.ones(F, dtype=torch.float64))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: cosines(a, a[:, 1:]),
        lambda a: carried(a, torch.eye(D + 1)),
        lambda a: carried(a[0], torch.eye(D)),
        lambda a: joint(a, a[:, 1:]),
        lambda a: joint(a, a.mT),
        lambda a: nearest(a[:0]),
        lambda a: assigned(a[:, :0]),
    ],
)
def test_what_does_not_fit_is_refused(dictionary, wrong):
    with pytest.raises(ValueError, match=r"wanted|must be one|at least one"):
        wrong(dictionary)
