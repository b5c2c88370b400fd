from random import Random

import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from plain import plain_labels

from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.dyck.task import BOS, EOS, PAD, Dyck

BRACKETS = "()[]{}"


def tokens_of(text: str) -> list[int]:
    """BOS, the brackets, EOS and one PAD."""
    return [BOS, *(3 + BRACKETS.index(c) for c in text), EOS, PAD]


def labels(tokens: list[int], max_depth: int = 8) -> tuple[list[int], list[int]]:
    batch = Dyck(DyckConfig(max_depth=max_depth, nest_min_depth=1)).label(torch.tensor(tokens))
    return batch.depth.tolist(), batch.valid.tolist()


any_tokens = st.lists(st.integers(0, 8), min_size=1, max_size=64)
noise = st.lists(st.integers(3, 8), min_size=1, max_size=62)


@st.composite
def walks(draw, fault: float = 0.0, opening: float = 0.6, least: int = 1) -> list[int]:
    """Brackets that open and close what is open; a `fault` share of them is arbitrary."""
    tokens, stack = [], []
    for choice, family, wild in draw(
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), st.floats(0, 1)), min_size=least, max_size=62)
    ):
        if wild < fault:
            tokens.append(3 + int(choice * 5.999))
        elif choice < opening or not stack:
            stack.append(family)
            tokens.append(3 + 2 * family)
        else:
            tokens.append(4 + 2 * stack.pop())
    return tokens


deep = walks(opening=0.8, least=20)
strings = st.one_of(any_tokens, noise, walks(), walks(fault=0.05), deep)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(strings, st.integers(1, 15))
def test_labels_are_those_of_a_plain_stack(tokens, max_depth):
    assert labels(tokens, max_depth) == plain_labels(tokens, max_depth)


@pytest.mark.parametrize(
    ("text", "depth", "valid"),
    [
        ("([{}])", [1, 2, 3, 2, 1, 0], [0] * 6),
        ("", [], []),
        (")(", [0, 0], [1, 1]),  # an empty stack
        ("(()))", [1, 2, 1, 0, 0], [0, 0, 0, 0, 1]),
        ("([)]((", [1, 2, 2, 2, 2, 2], [0, 0, 1, 1, 1, 1]),  # the wrong family, then frozen
        ("(" * 9 + ")", [*range(1, 9), 8, 8], [0] * 8 + [1, 1]),  # the ninth is too deep
        ("(" * 8 + ")", [*range(1, 9), 7], [0] * 9),  # the opposite: eight are not
        ("{" * 62, [*range(1, 9)] + [8] * 54, [0] * 8 + [1] * 54),
    ],
)
def test_violations_and_frozen_depth(text, depth, valid):
    last = (depth[-1:] or [0], valid[-1:] or [0])
    assert labels(tokens_of(text)) == ([0, *depth, *last[0] * 2], [0, *valid, *last[1] * 2])


def test_the_deepest_stack_that_is_allowed_keeps_its_families():
    families = [(7 * k) % 3 for k in range(15)]
    openers, closers = [3 + 2 * f for f in families], [4 + 2 * f for f in reversed(families)]
    depth, valid = labels(openers + closers, max_depth=15)
    assert (depth, max(valid)) == ([*range(1, 16), *range(14, -1, -1)], 0)
    wrong = [*openers, *closers[:-1], 3 + 2 * families[0] + 3 if families[0] < 2 else 4]
    assert labels(wrong, max_depth=15)[1][-1] == 1


ENOUGH = settings(max_examples=2000, deadline=None, database=None)


def wrong_labellers():
    """The classic mistakes, each as (depth, valid) of a token string."""

    def goes_on(tokens):  # the depth moves after a violation
        change = [(token > 2) * (2 * (token % 2) - 1) for token in tokens]
        return [sum(change[: i + 1]) for i in range(len(tokens))], plain_labels(tokens, 8)[1]

    def families_ignored(tokens):
        return plain_labels([3 + (token - 3) % 2 if token > 2 else token for token in tokens], 8)

    def one_too_deep(tokens):
        return plain_labels(tokens, 9)

    def forgives(tokens):  # valid says whether this position violates, not whether any has
        depth, valid = plain_labels(tokens, 8)
        return depth, [int(v and not w) for v, w in zip(valid, [0, *valid], strict=False)]

    return goes_on, families_ignored, one_too_deep, forgives


@pytest.mark.parametrize("wrong", wrong_labellers(), ids=lambda labeller: labeller.__name__)
def test_the_property_tells_wrong_labellers_apart(wrong):
    """The opposite: strings of the kinds drawn above convict every wrong labeller, and spare Dyck's."""

    def differs(tokens):
        return wrong(tokens) != plain_labels(tokens, 8)

    convicting = find(strings, differs, settings=ENOUGH, random=Random(0))
    assert labels(convicting) == plain_labels(convicting, 8)


def test_any_leading_axes_and_what_a_batch_offers(generator):
    tokens = torch.randint(0, 9, (2, 3, 5, 20), generator=generator)
    task = Dyck()
    batch = task.label(tokens)
    assert torch.equal(batch.depth[1, 2, 3], task.label(tokens[1, 2, 3]).depth)
    assert torch.equal(batch.mask(), tokens != PAD)
    assert torch.equal(batch.lengths, (tokens != PAD).sum(-1))
    assert list(batch.labels()) == list(task.classes) == ["tok", "depth", "valid"]
    for head, label in batch.labels().items():
        assert label.dtype == torch.int64
        assert 0 <= int(label.min()) <= int(label.max()) < task.classes[head]
    assert torch.equal(batch[1].valid, batch.valid[1])
