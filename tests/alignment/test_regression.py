"""Ridge and reduced rank, and what cross-validation over document blocks chooses."""

import pytest
import torch
from plants import activations, haar, normal

from polymorph.alignment import FITS, fit_ladder, r2_from_moments
from polymorph.alignment.accumulator import MomentAccumulator, pair_moments
from polymorph.alignment.moments import PairMoments, explained_variance
from polymorph.alignment.regression import (
    affine,
    affine_cv,
    choose_rank,
    choose_ridge,
    cross_validated,
    reduced_rank,
    reduced_rank_cv,
)

D = 16


def blocked(x: torch.Tensor, y: torch.Tensor, blocks: int = 8) -> PairMoments:
    """[blocks, 1] moments, five tokens a document."""
    moments = MomentAccumulator([(0, 0)], blocks)
    moments.update(x[None], torch.arange(len(x)) // 5, right=y[None])
    return moments.result()


def planted(generator: torch.Generator, n: int, rank: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """y = x of full rank through a map of the given rank, with unequal directions, plus noise."""
    x = normal(generator, n, D) + 1
    strength = torch.linspace(2, 1, rank, dtype=torch.float64)
    W = (haar(generator, D)[:, :rank] * strength) @ haar(generator, D)[:rank]
    return x, x @ W + noise * normal(generator, n, D) - 3


def test_at_full_rank_it_is_affine(generator):
    moments = pair_moments(activations(generator), activations(generator, d=5))
    torch.testing.assert_close(reduced_rank(moments, 5).weight, affine(moments).weight)


def test_a_planted_map_of_low_rank_is_recovered(generator):
    x, y = planted(generator, 400, rank=3, noise=0.0)
    moments = pair_moments(x, y)
    found = reduced_rank(moments, 3)
    torch.testing.assert_close(found(x), y, rtol=0, atol=1e-6)  # the tiny ridge shrinks by 1e-8
    assert int(torch.linalg.matrix_rank(found.weight, rtol=1e-8)) == 3
    assert float(r2_from_moments(reduced_rank(moments, 2), moments)) < 0.95


def test_no_other_map_of_that_rank_fits_better(generator):
    x, y = planted(generator, 400, rank=6, noise=1.0)
    moments = pair_moments(x, y)
    best = float(r2_from_moments(reduced_rank(moments, 2), moments))
    W = affine(moments).weight
    for P in [torch.linalg.qr(normal(generator, D, 2)).Q for _ in range(20)] + [_leading(y), _leading(x @ W)]:
        other = W @ P @ P.T
        centred = (x - x.mean(0)) @ other + y.mean(0)
        assert explained_variance(centred, y) <= best + 1e-10


def _leading(y: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svd(y - y.mean(0)).Vh[:2].T


def test_each_pair_has_its_own_rank(generator):
    x, y = planted(generator, 400, rank=6, noise=1.0)
    both = blocked(x, y, blocks=2)[:, [0, 0]].total()
    found = reduced_rank(both, torch.tensor([2, 5]))
    assert [int(torch.linalg.matrix_rank(W, rtol=1e-8)) for W in found.weight] == [2, 5]
    torch.testing.assert_close(found.weight[1], reduced_rank(both[1], 5).weight)


@pytest.mark.parametrize("rank", [0, 17])
def test_a_rank_that_is_none_is_refused(generator, rank):
    moments = pair_moments(*planted(generator, 400, 3, 1.0))
    with pytest.raises(ValueError, match=f"has rank 1 to 16, not {rank}"):
        reduced_rank(moments, rank)


@pytest.mark.parametrize("rank", [3, 10])
def test_the_planted_rank_is_chosen(generator, rank):
    found = [int(choose_rank(blocked(*planted(generator, 1500, rank, 0.5)))) for _ in range(10)]
    # the one-standard-error rule with four folds may now and then keep a direction too many
    assert found.count(rank) >= 8
    assert min(found) >= rank
    chosen = reduced_rank_cv(blocked(*planted(generator, 1500, rank, 0.1)))
    assert int(torch.linalg.matrix_rank(chosen.weight[0], rtol=1e-8)) in (rank, rank + 1)


def test_held_out_scores_are_those_of_tokens(generator):
    """The algebra of the folds against maps fitted and scored in the open."""
    x, y = planted(generator, 80, rank=4, noise=2.0)
    fold = (torch.arange(80) // 5) % 2
    scores = []
    for rank in range(1, D + 1):
        held = []
        for f in range(2):
            found = reduced_rank(pair_moments(x[fold != f], y[fold != f]), rank)
            held.append(explained_variance(found(x[fold == f]), y[fold == f]))
        scores.append(held)
    wanted = torch.tensor(scores, dtype=torch.float64)  # [ranks folds]
    worse = wanted[wanted.mean(1).argmax()] - wanted
    within = worse.mean(1) <= worse.std(1) / 2**0.5
    assert int(choose_rank(blocked(x, y, blocks=2))) == int(within.nonzero()[0]) + 1


def test_with_few_tokens_the_chosen_ridge_beats_the_tiny_one(generator):
    x, y = planted(generator, 420, rank=D, noise=3.0)
    few, rest = slice(0, 24), slice(24, None)
    blocks, held_out = blocked(x[few], y[few], blocks=4), pair_moments(x[rest], y[rest])
    chosen, tiny = (r2_from_moments(f, held_out) for f in (affine_cv(blocks)[0], affine(blocks.total())[0]))
    assert float(chosen) > float(tiny) + 0.1
    assert float(choose_ridge(blocks)) > 1e-3


def test_with_many_tokens_it_equals_it(generator):
    x, y = planted(generator, 20_000, rank=D, noise=0.3)
    blocks = blocked(x, y)
    moments = blocks.total()
    chosen, tiny = (float(r2_from_moments(f, moments)) for f in (affine_cv(blocks), affine(moments)))
    assert chosen == pytest.approx(tiny, abs=1e-5)
    assert float(choose_ridge(blocks)) < 1e-2


def test_pairs_are_chosen_alone(generator):
    """A batch [2, 3] of pairs gives each what it gets by itself, whatever shares its slab."""
    parts = [blocked(*planted(generator, 200, rank, 1.0)) for rank in (2, 5, 9)]
    names = ("n", "mean_x", "mean_y", "xx", "yy", "xy")
    stacked = PairMoments(**{k: torch.cat([getattr(p, k) for p in parts], 1) for k in names})
    ridge, rank = cross_validated(stacked[:, None][:, [0, 0]])
    assert ridge.shape == rank.shape == (2, 3)
    for at, part in enumerate(parts):
        assert ridge[:, at].tolist() == [float(choose_ridge(part))] * 2
        assert rank[:, at].tolist() == [int(choose_rank(part))] * 2


def test_one_block_cannot_choose(generator):
    one = blocked(*planted(generator, 200, 3, 1.0), blocks=1)
    with pytest.raises(ValueError, match="at least two blocks of documents, not 1"):
        choose_rank(one)
    torch.testing.assert_close(affine_cv(one).weight, affine(one.total()).weight)
    assert list(fit_ladder(one)) == list(FITS)


def test_blocks_without_tokens_are_left_out(generator):
    x, y = planted(generator, 200, 3, 1.0)
    full, sparse = blocked(x, y, blocks=40), blocked(x, y, blocks=64)
    assert int((sparse.n > 0).sum()) == 40
    assert float(choose_ridge(full)) == float(choose_ridge(sparse))


def test_the_ladder_is_its_rungs_in_order(generator):
    blocks = blocked(*planted(generator, 400, 3, 1.0))
    rungs = fit_ladder(blocks)
    assert list(rungs) == [*list(FITS)[:-1], "reduced_rank", "affine"]
    assert [fitted.name for fitted in rungs.values()] == list(rungs)
    torch.testing.assert_close(rungs["affine"].weight, affine_cv(blocks).weight)
    torch.testing.assert_close(rungs["reduced_rank"].weight, reduced_rank_cv(blocks).weight)
    torch.testing.assert_close(rungs["rotation"].weight, FITS["rotation"](blocks.total()).weight)
