"""The polar factor by both routes, and that a decomposition is paid for once."""

import pytest
import torch
from plants import activations, haar, normal

from polymorph.alignment import fit
from polymorph.alignment.accumulator import pair_moments
from polymorph.alignment.fit import orthogonal, rotation, similarity
from polymorph.alignment.polar import least_direction, nearest_rotation, newton_polar, polar


def conditioned(generator: torch.Generator, condition: float, d: int = 12) -> torch.Tensor:
    singular = torch.logspace(0, -torch.tensor(condition).log10(), d, dtype=torch.float64)
    return (haar(generator, d) * singular) @ haar(generator, d)


@pytest.fixture
def svds(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes that were given to torch.linalg.svd."""
    shapes: list[tuple[int, ...]] = []
    plain = torch.linalg.svd

    def counted(M, *args, **kwargs):
        shapes.append(tuple(M.shape))
        return plain(M, *args, **kwargs)

    monkeypatch.setattr(torch.linalg, "svd", counted)
    return shapes


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_the_iteration_is_the_svd(generator, condition):
    M = torch.stack([conditioned(generator, condition) for _ in range(5)]) * 1e7
    Q, passed = newton_polar(M)
    assert passed.all()
    # perturbing M by ε turns Q by ε · condition: 2e-12 at 1e4
    torch.testing.assert_close(Q, polar(M, "svd"), rtol=0, atol=1e-10)


def test_at_a_hard_condition_the_iteration_is_still_a_maximum(generator):
    M = conditioned(generator, 1e11)
    Q, passed = newton_polar(M)
    assert passed
    nuclear = torch.linalg.svdvals(M).sum()
    assert float((Q * M).sum()) == pytest.approx(float(nuclear), rel=1e-12)


def test_only_the_singular_ones_of_a_batch_fall_back(generator, svds):
    flat = normal(generator, 12, 5) @ normal(generator, 5, 12)
    M = torch.stack([conditioned(generator, 10), flat, torch.zeros(12, 12, dtype=torch.float64)])[:, None]
    _, passed = newton_polar(M)
    assert passed.squeeze(1).tolist() == [True, False, False]
    assert svds == []
    Q = polar(M, "iteration")
    assert svds == [(2, 12, 12)]
    one = torch.eye(12, dtype=torch.float64).expand_as(M)
    torch.testing.assert_close(Q.mT @ Q, one, rtol=0, atol=1e-12)
    assert torch.equal(Q[1:], polar(M[1:], "svd"))


def test_the_iteration_alone_needs_no_svd_and_the_cpu_takes_it(generator, svds):
    M = conditioned(generator, 10)
    polar(M, "iteration")
    assert svds == []
    polar(M)
    assert svds == [(12, 12)]


@pytest.mark.parametrize("method", ["svd", "iteration"])
def test_no_small_turn_is_better(generator, method):
    M = normal(generator, 12, 12)
    Q = polar(M, method)
    best = float((Q * M).sum())
    for _ in range(50):
        A = 0.05 * normal(generator, 12, 12)
        assert float((Q @ torch.linalg.matrix_exp(A - A.T) * M).sum()) < best
    assert float((haar(generator, 12) * M).sum()) < best


def test_the_nearest_rotation_reverses_the_least_direction(generator):
    M = torch.stack(
        [haar(generator, 12, sign) @ torch.diag(torch.arange(1.0, 13).double()) for sign in (1, -1)]
    )
    Q = polar(M)
    turned = nearest_rotation(Q, least_direction(Q, M))
    torch.testing.assert_close(turned[0], Q[0])
    assert torch.linalg.det(turned).tolist() == pytest.approx([1, 1])
    # of Σ σ_i the least, 1, is lost twice
    assert float((turned[1] * M[1]).sum()) == pytest.approx(78 - 2)


def test_an_unknown_route_is_refused(generator):
    with pytest.raises(Exception, match=r"method|by auto, svd or iteration"):
        polar(normal(generator, 3, 3), "guess")


def test_three_families_and_both_directions_cost_one_svd(generator, svds):
    moments = pair_moments(activations(generator), activations(generator))
    swapped = moments.swap()
    there = [family(moments).weight for family in (orthogonal, rotation, similarity)]
    back = [family(swapped).weight for family in (orthogonal, rotation, similarity)]
    assert len(svds) == 1
    torch.testing.assert_close(back[0], there[0].mT)
    again = orthogonal(swapped.swap().to("cpu"))
    assert len(svds) == 1
    torch.testing.assert_close(again.weight, there[0])
    plain = pair_moments(activations(generator), activations(generator))
    orthogonal(plain)
    assert len(svds) == 2  # other moments have their own


def test_swapped_factors_are_those_of_the_transpose(generator):
    moments = pair_moments(activations(generator), activations(generator, d=5))
    U, singular, Vh = moments.swap().cross_svd
    torch.testing.assert_close((U * singular) @ Vh, moments.xy.mT)
    assert (U.shape, Vh.shape) == ((5, 5), (5, 8))


def test_without_a_svd_the_fits_are_the_same(generator, monkeypatch):
    """As on an accelerator: the iteration, and eigenvectors of QᵀM for the direction that a rotation reverses."""
    x, y = activations(generator), activations(generator)
    y = 1.3 * x @ haar(generator, 8, sign=-1) + 0.1 * y
    wanted = [family(pair_moments(x, y)).weight for family in (orthogonal, rotation, similarity)]
    monkeypatch.setattr(fit, "_decomposed", lambda moments: False)
    monkeypatch.setattr(fit, "polar", lambda M: polar(M, "iteration"))
    moments = pair_moments(x, y)
    found = [family(moments).weight for family in (orthogonal, rotation, similarity)]
    assert "cross_svd" not in vars(moments)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    torch.testing.assert_close(orthogonal(moments.swap()).weight, wanted[0].mT, rtol=0, atol=1e-10)
