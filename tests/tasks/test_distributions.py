from functools import cache

import numpy as np
import pytest
import torch
from plain import CLOSERS, OPENERS, noise_validity, plain_labels
from scipy.stats import binomtest, chisquare

from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.dyck.task import Batch, Distribution, Dyck

# A p-value of a correct sampler is uniform: one below this happens in one of a million fixed seeds.
REJECT = 1e-6
N = 12_000


@cache
def sample(distribution: Distribution, **config: int) -> Batch:
    task = Dyck(DyckConfig(**config))
    return task.batches(torch.tensor([20240607]), torch.tensor([0]), N, "train", distribution)[0][0]


def uniform(values: torch.Tensor, low: int, high: int) -> float:
    """p-value of uniformity on low…high; values outside are an error."""
    assert low <= int(values.min()) <= int(values.max()) <= high
    return float(chisquare(torch.bincount(values - low, minlength=high - low + 1)).pvalue)


def valid_to_the_end(batch: Batch) -> torch.Tensor:
    return batch.valid[:, -1] == 0


@pytest.mark.parametrize(("distribution", "low", "high"), [("train", 2, 62), ("long", 50, 60)])
def test_lengths_are_uniform(distribution, low, high):
    lengths = sample(distribution).lengths - 2
    assert uniform(lengths, low, high) > REJECT
    # The opposite: the same lengths are not uniform if the least one may not occur.
    assert chisquare(torch.bincount(lengths.clamp(min=low + 1) - low)).pvalue < REJECT


def test_a_shorter_training_length_leaves_the_long_ones_out():
    shorter = {"max_length": 48}
    assert uniform(sample("train", **shorter).lengths - 2, 2, 48) > REJECT
    assert int(sample("long", **shorter).lengths.min()) - 2 == 50


def drawn(stream: str, distribution: Distribution = "train", **config: int) -> Batch:
    task = Dyck(DyckConfig(**config))
    return task.batches(torch.tensor([20240607]), torch.tensor([0]), N, stream, distribution)[0][0]


def test_an_evaluation_is_shorter_than_training():
    """The paper's code evaluates lengths 2…48 where it trains on 2…62."""
    assert uniform(drawn("evaluation").lengths - 2, 2, 48) > REJECT
    assert uniform(drawn("train").lengths - 2, 2, 62) > REJECT
    # The opposite, which is how cohorts were evaluated before there was the key.
    assert uniform(drawn("evaluation", eval_max_length=62).lengths - 2, 2, 62) > REJECT
    chunks = list(Dyck().held_out("train", 512, torch.device("cpu")))
    assert max(int(chunk.position.max()) for chunk in chunks) == 48 + 1  # EOS


@pytest.mark.parametrize("stream", ["train", "probe", "sae"])
def test_only_evaluations_are_shorter(stream):
    assert torch.equal(drawn(stream).tokens, drawn(stream, eval_max_length=62).tokens)
    assert not torch.equal(drawn("evaluation").tokens, drawn("evaluation", eval_max_length=62).tokens)


@pytest.mark.parametrize("distribution", ["compositional", "long"])
def test_the_other_distributions_keep_their_lengths(distribution):
    shown = [drawn("evaluation", distribution, **own).tokens for own in ({}, {"eval_max_length": 62})]
    assert torch.equal(*shown)


def test_an_evaluation_is_never_longer_than_training():
    assert DyckConfig(max_length=40) == DyckConfig(max_length=40, eval_max_length=40)
    assert DyckConfig(max_length=50).eval_max_length == 48


def test_half_of_the_sequences_are_prefixes():
    """Uniform brackets are valid by chance with a probability that a Markov chain gives exactly."""
    by_chance = np.mean([noise_validity(n, 8) for n in range(2, 63)])
    valid = int(valid_to_the_end(sample("train")).sum())
    assert binomtest(valid, N, 0.5 + 0.5 * by_chance).pvalue > REJECT
    assert binomtest(valid, N, 0.475).pvalue < REJECT  # the opposite: the test can tell a fortieth


# Of fifty uniform brackets and more, fewer than one in a million is valid: there, valid is to be a prefix.
assert noise_validity(50, 8) < 1e-6


def test_half_of_the_long_sequences_are_prefixes():
    assert binomtest(int(valid_to_the_end(sample("long")).sum()), N, 0.5).pvalue > REJECT


def test_a_prefix_opens_as_the_depth_says():
    batch = sample("long")
    prefixes = batch[valid_to_the_end(batch)]
    before, token = prefixes.depth[:, :-1], prefixes.tokens[:, 1:]
    bracket, opens = token >= 3, token % 2 == 1
    assert bool(opens[bracket & (before == 0)].all())
    assert not bool(opens[bracket & (before == 8)].any())
    free = opens[bracket & (before > 0) & (before < 8)]
    assert binomtest(int(free.sum()), len(free), 0.55).pvalue > REJECT
    assert binomtest(int(free.sum()), len(free), 0.54).pvalue < REJECT
    assert int((bracket & (before == 8)).sum()) > 1000  # the deepest place is not rare


def test_a_prefix_opens_every_family_equally_often_whatever_came_before():
    batch = sample("long")
    prefixes = batch[valid_to_the_end(batch)]
    here, token = prefixes.tokens[:, 1:-1], prefixes.tokens[:, 2:]
    for last in (None, *OPENERS, *CLOSERS):
        at = (token >= 3) & (token % 2 == 1) & (True if last is None else here == last)
        assert uniform((token[at] - 3) // 2, 0, 2) > REJECT


def test_noise_is_uniform_in_every_place_and_in_pairs():
    batch = sample("long")
    noise = batch.tokens[~valid_to_the_end(batch)] - 3
    first, second = noise[:, 1:51], noise[:, 2:51]  # fifty brackets are everywhere
    assert uniform(first.flatten(), 0, 5) > REJECT
    assert uniform((6 * first[:, :-1] + second).flatten(), 0, 35) > REJECT
    for place in (0, 1, 49):
        assert uniform(first[:, place], 0, 5) > REJECT
    # The opposite: a prefix's brackets are not uniform.
    prefixes = batch.tokens[valid_to_the_end(batch)] - 3
    assert uniform(prefixes[:, 1:51].flatten(), 0, 5) < REJECT


def pairs_and_nest(brackets: list[int]) -> tuple[int, int]:
    """Depth and family of the only nest; everything else must be shallow matching pairs at even places."""
    nests, at = [], 0
    while at < len(brackets):
        depth = 1
        while brackets[at + depth] in OPENERS:
            depth += 1
        families = {OPENERS[b] for b in brackets[at : at + depth]}
        families |= {CLOSERS[b] for b in brackets[at + depth : at + 2 * depth]}
        assert at % 2 == 0
        assert len(families) == 1
        if depth > 1:
            nests.append((depth, *families))
        at += 2 * depth
    (nest,) = nests
    return nest


def test_compositional_is_one_nest_between_shallow_pairs():
    batch = sample("compositional")[:3000]
    assert set(batch.lengths.tolist()) == {64}
    assert int(batch.valid.max()) == 0
    assert plain_labels(batch.tokens[0].tolist(), 8)[0][-1] == 0
    nests = torch.tensor([pairs_and_nest(row[1:-1]) for row in batch.tokens.tolist()])
    depth, family = nests.unbind(1)
    assert uniform(depth, 3, 8) > REJECT
    assert uniform(family, 0, 2) > REJECT
    assert uniform(3 * (depth - 3) + family, 0, 17) > REJECT  # independent of each other


def test_shallow_pairs_are_mixed():
    tokens = sample("compositional").tokens[:, 1:3]  # depth 8 at most: the first places are never the nest's
    assert uniform((tokens[:, 0] - 3) // 2, 0, 2) > REJECT
    rows = sample("compositional").tokens[:, 1:5:2]  # two neighbouring pairs
    assert uniform((3 * ((rows[:, 0] - 3) // 2) + (rows[:, 1] - 3) // 2), 0, 8) > REJECT
