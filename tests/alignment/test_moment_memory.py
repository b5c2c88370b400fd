"""What an accumulator holds, and that totals are put together without the blocks × pairs in between."""

import torch
from plants import normal

from polymorph.alignment.accumulator import MomentAccumulator, moment_bytes

PAIRS = [(2, 1), (0, 1), (0, 3), (0, 2), (1, 3), (0, 1)]


def accumulated(generator: torch.Generator, pairs: list[tuple[int, int]], blocks: int) -> MomentAccumulator:
    moments = MomentAccumulator(pairs, blocks)
    moments.update(normal(generator, 4, 300, 6) + 2, torch.arange(300) // 10)
    return moments


def held(accumulator: MomentAccumulator) -> int:
    """Bytes of the float64 tensors reachable from an accumulator, each storage once."""
    sums = accumulator._sums
    assert sums is not None
    tensors = [value for part in (sums, *sums.sides) for value in vars(part).values()]
    floats = [t for t in tensors if isinstance(t, torch.Tensor) and t.dtype == torch.float64]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in floats}.values())


def test_the_bytes_are_those_of_the_tensors(generator):
    for blocks in (1, 16):
        assert held(accumulated(generator, PAIRS, blocks)) == moment_bytes(4, len(PAIRS), 6, blocks)


def test_the_bytes_do_not_depend_on_the_number_of_tokens(generator):
    moments = accumulated(generator, PAIRS, 3)
    before = held(moments)
    moments.update(normal(generator, 4, 5000, 6), torch.arange(5000))
    assert held(moments) == before


def test_the_total_is_that_of_the_blocks_in_any_order_of_the_pairs(generator):
    moments = accumulated(generator, PAIRS, 7)
    total, wanted = moments.total(), moments.result().total()
    for name in ("n", "mean_x", "mean_y", "xx", "yy", "xy"):
        torch.testing.assert_close(getattr(total, name), getattr(wanted, name), rtol=1e-12, atol=1e-11)
    assert torch.equal(total.xy[1], total.xy[5])  # a pair named twice
    assert not torch.equal(total.xy[0], total.xy[1])


def test_the_total_is_not_expanded(generator):
    """36 pairs × 16 blocks × 3 matrices would be 45 times the pairs' own sums; a new tensor is never so large."""
    pairs = [(i, j) for i in range(9) for j in range(i + 1, 9)]
    moments = MomentAccumulator(pairs, blocks=16)
    moments.update(normal(generator, 9, 320, 16), torch.arange(320))
    largest = _largest_allocation(moments.total)
    assert largest <= 8 * len(pairs) * 16 * 16
    assert _largest_allocation(moments.result) > 16 * largest / 2  # the opposite, and that it would be seen


def _largest_allocation(action) -> int:
    with torch.profiler.profile(profile_memory=True) as profile:
        action()
    return max(event.cpu_memory_usage for event in profile.events())
