from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polymorph.tasks.dyck.task import PAD, Batch, Dyck
from polymorph.tasks.packing import pack
from polymorph.tasks.task import IGNORED

CONTEXT = 10
HEADS = ("tok", "depth", "valid")

Sequence = tuple[tuple[int, ...], ...]


def batch_of(lengths: list[list[int]]) -> Batch:
    """Tokens and labels that are all different, so that none can stand in for another."""
    count = torch.tensor(lengths)
    shape = (*count.shape, CONTEXT)
    tokens = 1 + torch.arange(count.numel() * CONTEXT).view(shape)
    tokens = tokens.masked_fill(torch.arange(CONTEXT) >= count[..., None], PAD)
    return Batch(tokens, 1000 + tokens, 2000 + tokens, count)


def sequences_of(batch: Batch, member: int) -> Counter[Sequence]:
    """Every sequence of a member, as the labels of its tokens."""
    rows = zip(
        batch.tokens[member], batch.depth[member], batch.valid[member], batch.lengths[member], strict=True
    )
    return Counter(
        tuple(tuple(values[:length].tolist()) for values in (tokens, tokens, depth, valid))
        for tokens, depth, valid, length in rows
    )


def packed_sequences(packed, member: int) -> Counter[Sequence]:
    """The same, read off the packed row along its layout; what is IGNORED is dropped."""
    found, start = Counter(), 0
    for rows, length in packed.keywords["layout"]:
        for _ in range(rows):
            span = slice(start, start + length)
            start += length
            tokens, positions = (values[member, 0, span] for values in packed.arguments)
            labels = [packed.labels[head][member, 0, span] for head in HEADS]
            kept = labels[0] != IGNORED
            assert positions.tolist() == list(range(length))
            assert bool((kept == (tokens != PAD)).all())
            assert all(bool(((label != IGNORED) == kept).all()) for label in labels)
            assert not bool((kept[1:] & ~kept[:-1]).any())  # PAD comes last
            found[tuple(tuple(values[kept].tolist()) for values in (tokens, *labels))] += 1
    assert start == packed.arguments[0].shape[-1]
    return found


lengths = st.integers(1, 9).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(2, CONTEXT), min_size=size, max_size=size), min_size=1, max_size=3
    )
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(lengths, st.integers(1, 12))
def test_every_token_is_kept_once_with_its_labels_in_its_sequence(lengths, groups):
    batch = batch_of(lengths)
    packed = pack(batch, groups)
    members, size = batch.lengths.shape
    assert (
        packed.arguments[0].shape == packed.arguments[1].shape == (members, 1, packed.arguments[0].shape[-1])
    )
    for member in range(members):
        assert packed_sequences(packed, member) == sequences_of(batch, member)
    # The layout holds every sequence, in at most so many rectangles, the longest first.
    rows, longest = zip(*packed.keywords["layout"], strict=True)
    assert sum(rows) == size
    assert len(rows) == min(groups, size)
    assert max(rows) - min(rows) <= 1
    assert list(longest) == sorted(longest, reverse=True)
    assert longest[0] == int(batch.lengths.max())


def test_the_multiset_tells_a_lost_and_a_doubled_token():
    """The opposite: a packed row with one label ignored, or one sequence given twice, is another multiset."""
    batch = batch_of([[3, 5, 4, 2]])
    packed = pack(batch, 2)
    for head in HEADS:
        packed.labels[head][0, 0, 4] = IGNORED
    packed.arguments[0][0, 0, 4] = PAD
    assert packed_sequences(packed, 0) != sequences_of(batch, 0)
    doubled = Batch(*(f[:, [0, 0, 2, 3]] for f in (batch.tokens, batch.depth, batch.valid, batch.lengths)))
    assert packed_sequences(pack(doubled, 2), 0) != sequences_of(batch, 0)


def test_one_group_a_sequence_leaves_no_pad_to_one_member():
    batch = batch_of([[3, 5, 4, 2, 5]])
    packed = pack(batch, 5)
    assert packed.arguments[0].shape[-1] == 3 + 5 + 4 + 2 + 5
    assert not bool((packed.arguments[0] == PAD).any())
    assert pack(batch, 1).keywords["layout"] == ((5, 5),)
    assert pack(batch, 100).keywords["layout"] == packed.keywords["layout"]


def test_a_group_is_as_long_as_the_longest_of_any_member():
    assert pack(batch_of([[2, 3, 9, 2], [4, 4, 4, 8]]), 2).keywords["layout"] == ((2, 9), (2, 4))


def test_packing_leaves_the_batch_alone():
    batch = batch_of([[3, 5, 4, 2]])
    before = batch.depth.clone()
    packed = pack(batch, 2)
    packed.labels["depth"].zero_()
    packed.arguments[0].zero_()
    assert torch.equal(batch.depth, before)
    assert torch.equal(batch.tokens, batch_of([[3, 5, 4, 2]]).tokens)


def test_a_batch_of_the_task_loses_half_of_its_pad():
    batch = Dyck().batches(torch.arange(3), torch.tensor([0]), 64)[0]
    packed = pack(batch, 16)
    tokens = int(batch.lengths.sum())
    assert [int((label != IGNORED).sum()) for label in packed.labels.values()] == [tokens] * 3
    assert packed.arguments[0].numel() - tokens < (batch.tokens.numel() - tokens) / 2
    for member in range(3):
        assert packed_sequences(packed, member) == sequences_of(batch, member)


@pytest.mark.parametrize("members", [1, 4])
def test_one_members_batch_is_given_to_several(members):
    packed = pack(batch_of([[3, 5, 4]]), 2)
    spread = packed.expand(members)
    assert spread.keywords["layout"] == packed.keywords["layout"]
    assert spread.arguments[0].shape == (members, 1, packed.arguments[0].shape[-1])
    for member in range(members):
        assert packed_sequences(spread, member) == packed_sequences(packed, 0)


def test_a_static_layout_has_one_shape_whatever_the_lengths_and_keeps_every_token() -> None:
    task, seeds = Dyck(), torch.tensor([3])
    batches = [task.batches(seeds, torch.tensor([step]), 12)[0] for step in range(3)]
    static = [pack(batch, 1, static=True) for batch in batches]
    assert {packed.keywords["layout"] for packed in static} == {((12, 64),)}
    assert (
        len({pack(batch, 4).keywords["layout"] for batch in batches}) == 3
    )  # the opposite: cropped to what is there
    for batch, packed in zip(batches, static, strict=True):
        assert int((packed.labels["tok"] != IGNORED).sum()) == int(batch.lengths.sum())
