import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.dyck.task import BOS, DISTRIBUTIONS, EOS, PAD, STREAMS, Batch, Dyck

FIELDS = ("tokens", "depth", "valid", "lengths")
TASK = Dyck()


def alone(seed: int, step: int, size: int, stream: str = "train", distribution: str = "train") -> Batch:
    return TASK.batches(torch.tensor([seed]), torch.tensor([step]), size, stream, distribution)[0][0]


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


words = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seeds=st.lists(words, min_size=1, max_size=4),
    steps=st.lists(words, min_size=1, max_size=4),
    size=st.integers(1, 12),
    kept=st.integers(1, 12),
    stream=st.sampled_from(sorted(STREAMS)),
    distribution=st.sampled_from(DISTRIBUTIONS),
    data=st.data(),
)
def test_a_batch_is_a_function_of_seed_and_step(seeds, steps, size, kept, stream, distribution, data):
    together = TASK.batches(torch.tensor(seeds), torch.tensor(steps), size, stream, distribution)
    assert together.tokens.shape == (len(steps), len(seeds), size, 64)
    assert together.lengths.shape == (len(steps), len(seeds), size)
    i = data.draw(st.integers(0, len(steps) - 1))
    j = data.draw(st.integers(0, len(seeds) - 1))
    kept = min(kept, size)
    assert same(together[i][j][:kept], alone(seeds[j], steps[i], kept, stream, distribution))


def test_the_same_bits_whatever_chunk_they_come_in():
    seeds = torch.tensor([0, 5])
    whole = TASK.batches(seeds, torch.arange(12), 4)
    for start, stop in ((0, 5), (5, 6), (6, 12)):
        assert same(whole[start:stop], TASK.batches(seeds, torch.arange(start, stop), 4))


def test_batches_neither_read_nor_move_the_global_generator():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = alone(0, 0, 8)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, alone(0, 0, 8))


def different_sequences(a: Batch, b: Batch) -> float:
    return float((a.tokens != b.tokens).any(-1).double().mean())


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_seeds_steps_and_streams_draw_apart(distribution):
    here = alone(3, 7, 64, "train", distribution)
    assert different_sequences(here, alone(3, 7, 64, "train", distribution)) == 0
    apart = [
        alone(4, 7, 64, "train", distribution),
        alone(3, 8, 64, "train", distribution),
        alone(7, 3, 64, "train", distribution),
        *(alone(3, 7, 64, stream, distribution) for stream in STREAMS if stream != "train"),
    ]
    # Two short sequences may agree by chance; 64 of which a tenth agree may not.
    assert all(different_sequences(here, other) > 0.9 for other in apart)


def test_distributions_draw_apart():
    """Not only other lengths: the brackets at one place are drawn anew."""
    train, long = alone(3, 7, 256), alone(3, 7, 256, distribution="long")
    both = (train.tokens >= 3) & (long.tokens >= 3)
    agree = float((train.tokens == long.tokens)[both].double().mean())
    assert 0.1 < agree < 0.3  # independent brackets agree about one time in six; copied ones always


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_sequence_is_bos_brackets_eos_and_pad(distribution):
    batch = alone(11, 0, 300, distribution=distribution)
    for tokens, length in zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True):
        assert tokens[0] == BOS
        assert all(3 <= token <= 8 for token in tokens[1 : length - 1])
        assert tokens[length - 1] == EOS
        assert tokens[length:] == [PAD] * (64 - length)


def test_the_labels_of_a_batch_are_the_labels_of_its_tokens():
    batch = alone(2, 0, 64)
    assert same(batch, TASK.label(batch.tokens))


def test_an_unknown_stream_or_distribution_is_refused():
    with pytest.raises(KeyError):
        alone(0, 0, 1, stream="test")
    with pytest.raises(ValueError, match="not in tuple"):
        alone(0, 0, 1, distribution="short")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"context": 121}, "task.context=121"),
        ({"max_depth": 16}, "task.max_depth=16"),
        ({"min_length": 0}, "task.min_length=0"),
        ({"min_length": 9, "max_length": 8}, "task.max_length=8"),
        ({"max_length": 63}, "task.max_length=63"),
        ({"min_length": 50}, "task.eval_max_length=48: at least task.min_length=50"),
        ({"long_min_length": 61}, "task.long_min_length=61"),
        ({"long_max_length": 63}, "task.long_max_length=63"),
        ({"nest_min_depth": 0}, "task.nest_min_depth=0"),
        ({"nest_min_depth": 9}, "task.nest_min_depth=9"),
        ({"context": 14, "max_length": 12, "long_min_length": 1, "long_max_length": 12}, "task.max_depth=8"),
    ],
)
def test_a_wrong_task_is_refused_by_its_key(wrong, named):
    with pytest.raises(ValueError, match=named):
        DyckConfig(**wrong)


def test_a_small_task_is_not_refused():
    config = DyckConfig(context=18, max_length=16, long_min_length=10, long_max_length=16)
    assert Dyck(config).batches(torch.tensor([0]), torch.tensor([0]), 5).tokens.shape[-1] == 18
