"""The pairing test: its size with documents and positions, its power, and what makes it exact."""

import math
from collections.abc import Sequence

import pytest
import torch
from plants import haar, normal
from scipy.stats import binom, chisquare
from torch import Tensor

from polymorph.alignment import permutation
from polymorph.alignment.permutation import COMPONENTS, PairingTest, pairing_test, permuted_members
from polymorph.models.activations import Activations

SIMULATIONS, DRAWS, D = 300, 19, 4
PAIRS = [(0, 1), (0, 2), (1, 2)]


def ragged(generator: torch.Generator, documents: int, shortest: int = 3, longest: int = 9) -> Activations:
    """Documents of unequal lengths, without values; tokens are in the order of a chunk, not of documents."""
    lengths = torch.randint(shortest, longest + 1, (documents,), generator=generator)
    document = torch.arange(documents).repeat_interleave(lengths)
    position = torch.cat([torch.arange(int(length)) for length in lengths])
    order = torch.randperm(documents, generator=generator)[document].argsort(stable=True)
    return Activations({}, document[order], position[order])


def members(
    generator: torch.Generator, tokens: Activations, relation: float = 0.0, position: float = 1.0, n: int = 3
) -> Activations:
    """Members that share what the position says and a share `relation` of the variance of the rest."""
    documents, longest = int(tokens.document.max()) + 1, int(tokens.position.max()) + 1
    by_position = position * normal(generator, longest, D)[tokens.position]

    def clustered() -> Tensor:
        token = normal(generator, len(tokens.document), D)
        return (normal(generator, documents, D)[tokens.document] + token) / math.sqrt(2)

    shared = clustered()
    each = [
        (math.sqrt(relation) * shared + math.sqrt(1 - relation) * clustered() + by_position)
        @ haar(generator, D)
        + 3
        for _ in range(n)
    ]
    return Activations({"site": torch.stack(each)}, tokens.document, tokens.position)


def outcome(
    activations: Activations,
    draws: int,
    generator: torch.Generator,
    pairs: Sequence[tuple[int, int]] = PAIRS,
) -> PairingTest:
    return pairing_test(activations, "site", pairs, draws, generator)


def accepted(p_values: list[float]) -> bool:
    """Whether p-values (1 + rank)/20 are uniform: the size at 0.05, and all of them in ten bins."""
    rejected = sum(p <= 0.05 + 1e-6 for p in p_values)
    low, high = (binom.ppf(q, len(p_values), 0.05) for q in (0.0005, 0.9995))
    bins = torch.tensor(p_values).mul(10).sub(0.25).long().bincount(minlength=10)
    return low <= rejected <= high and chisquare(bins.numpy()).pvalue > 0.001


def test_under_the_null_p_is_uniform_of_each_pair_and_of_all(generator):
    """Ragged documents of correlated tokens; positions alone relate the members."""
    one, joint = [], []
    for _ in range(SIMULATIONS):
        found = outcome(members(generator, ragged(generator, 20)), DRAWS, generator)
        one.append(float(found.p_values[0]))
        joint.append(found.p_value)
    assert accepted(one)
    assert accepted(joint)


def test_permuted_tokens_would_reject_there(generator):
    """The opposite: a shuffle of tokens destroys what position and document explain, and calls that a relation."""
    rejected = 0
    for _ in range(100):
        x, y, _ = members(generator, ragged(generator, 20)).values["site"]
        x, y = x - x.mean(0), y - y.mean(0)
        observed = float((x.mT @ y).square().sum())
        null = [
            float((x.mT @ y[torch.randperm(len(y), generator=generator)]).square().sum())
            for _ in range(DRAWS)
        ]
        rejected += observed > max(null)
    assert rejected > 80


def test_a_weak_relation_is_seen(generator):
    """A fifth of the variance in common, in 200 documents: p is the least there is."""
    activations = members(generator, ragged(generator, 200), relation=0.2)
    found = outcome(activations, 99, generator)
    assert found.p_value == pytest.approx(0.01)
    assert found.p_values.tolist() == pytest.approx([0.01] * 3)
    assert bool((found.observed > found.null.max(0).values).all())


def test_the_joint_test_sees_what_no_pair_does(generator):
    """The mean over pairs has less noise than each of them."""
    joint, single = 0, 0
    for _ in range(40):
        found = outcome(members(generator, ragged(generator, 30), relation=0.12, n=3), DRAWS, generator)
        joint += found.p_value <= 0.05 + 1e-6
        single += float(found.p_values[0]) <= 0.05 + 1e-6
    assert joint > single


def test_a_member_against_itself_has_the_coefficient_one(generator):
    tokens = members(generator, ragged(generator, 40))
    values = tokens.values["site"][:1].expand(2, -1, -1)
    found = outcome(Activations({"site": values}, tokens.document, tokens.position), 19, generator, [(0, 1)])
    assert float(found.observed) == pytest.approx(1, abs=1e-5)  # float32 products
    assert found.p_value == pytest.approx(0.05)


def test_more_dimensions_than_components_are_reduced_first(generator):
    tokens = ragged(generator, 60)
    x = normal(generator, 1, len(tokens.document), COMPONENTS + 16)
    values = torch.cat([x, x @ haar(generator, COMPONENTS + 16)])
    found = outcome(Activations({"site": values}, tokens.document, tokens.position), 19, generator, [(0, 1)])
    assert found.p_value == pytest.approx(0.05)
    # The leading components of a rotated copy are rotated copies.
    assert 0.9 < float(found.observed) < 1 + 1e-5


def test_the_generator_decides_the_null_and_the_data_are_left_alone(generator):
    activations = members(generator, ragged(generator, 30))
    before = activations.values["site"].clone()
    first, again, other = (
        outcome(activations, 5, torch.Generator().manual_seed(seed)).null for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(activations.values["site"], before)


@pytest.mark.parametrize("shuffled", [pairing_test, permuted_members])
def test_one_document_is_refused_or_left_as_it_is(generator, shuffled):
    tokens = Activations({}, torch.zeros(50, dtype=torch.long), torch.arange(50))
    activations = members(generator, tokens)
    if shuffled is pairing_test:
        with pytest.raises(ValueError, match="at least two documents"):
            outcome(activations, 9, generator)
    else:
        values, _ = permuted_members(activations, "site", generator)
        assert torch.equal(values, activations.values["site"])


# What makes it exact: whole documents, of one length in their group, with their positions.


def labelled(generator: torch.Generator, documents: int) -> Activations:
    """Values that say which document and which position a token has."""
    tokens = ragged(generator, documents)
    values = torch.stack([tokens.document, tokens.position], dim=-1).double()
    return Activations({"site": values.expand(3, -1, -1)}, tokens.document, tokens.position)


@pytest.mark.parametrize("documents", [2, 7, 8, 9, 20, 40])
def test_a_document_keeps_its_tokens_together(generator, documents):
    tokens = labelled(generator, documents)
    values, document = permuted_members(tokens, "site", generator)
    lengths = document.bincount()
    true_lengths = tokens.document.bincount()
    for member in values.long():
        taken = list(member.split(lengths.tolist()))
        for part in taken:  # one document, from its start
            assert len(part[:, 0].unique()) == 1
            assert part[:, 1].tolist() == list(range(len(part)))
            assert len(part) <= true_lengths[int(part[0, 0])]
        assert sorted(int(part[0, 0]) for part in taken) == list(range(documents))  # each of them once


@pytest.mark.parametrize("documents", [9, 20, 40])
def test_documents_change_places_inside_groups_of_one_length(generator, documents):
    """So that every order of a group is as likely as the true one, whatever the lengths."""
    tokens = labelled(generator, documents)
    values, document = permuted_members(tokens, "site", generator)
    lengths = document.bincount()
    firsts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)[:-1]])
    places = values[:, firsts, 0].long()  # which document stands where, for every member
    groups = torch.stack(
        [places[:, lengths == length].sort(-1).values.sum(-1) for length in lengths.unique()]
    )
    assert bool((groups == groups[:, :1]).all())  # the same documents in each group, for every member
    assert not torch.equal(places[0], places[1])
    true_lengths = tokens.document.bincount()
    for length in lengths.unique():
        own = true_lengths[places[0, lengths == length]]
        assert int(own.min()) == int(length)  # cut to the shortest, and not further
        assert int((lengths == length).sum()) >= min(8, documents)


def test_what_is_tested_is_what_remains_of_the_groups(generator):
    tokens = labelled(generator, 40)
    noisy = Activations(
        {"site": tokens.values["site"] + normal(generator, 3, len(tokens.document), 2)},
        tokens.document,
        tokens.position,
    )
    found = outcome(noisy, 3, generator)
    values, document = permuted_members(tokens, "site", generator)
    assert (found.tokens, found.documents) == (values.shape[1], 40)
    assert found.tokens == len(document) < len(tokens.document)


def test_documents_of_one_length_are_not_cut(generator):
    document = torch.arange(30).repeat_interleave(6)
    tokens = Activations({}, document, torch.arange(6).repeat(30))
    found = outcome(members(generator, tokens), 3, generator)
    assert (found.tokens, found.documents) == (180, 30)


def test_products_of_documents_added_up_are_those_of_permuted_tokens(generator):
    parts = [torch.randn(3, 8, 5, 6, generator=generator), torch.randn(3, 9, 4, 6, generator=generator)]
    flat = torch.cat([part.flatten(1, 2) for part in parts], 1)
    sizes = (flat.mT @ flat).square().sum((-2, -1)).sqrt()
    pairs = [(0, 1), (2, 1)]
    found = permutation._null(parts, pairs, sizes, 70, torch.Generator().manual_seed(5))
    drawing = torch.Generator().manual_seed(5)
    permuted = ([permutation._permuted(part, drawing) for part in parts] for _ in range(70))
    expected = torch.stack([permutation._rv(some, pairs, sizes) for some in permuted])
    torch.testing.assert_close(found, expected)
