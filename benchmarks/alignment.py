"""Aligning all pairs of a cohort from moments, against a loop of `scipy.linalg.orthogonal_procrustes`.

    python -m benchmarks.alignment [--quick] [--device cuda] [--budget 120]

First 9 members × 7 sites, d = 512, 65,536 tokens: the best orthogonal map of every pair and its R². Ours is all
pairs of one site, scipy's six pairs of it; both are extrapolated linearly to 36 pairs × 7 sites. Both score on
the tokens that fitted, which costs what other tokens would; the last line adds the moments of a second split.
Then memory, in processes of their own, at twice the tokens; then a table over d and members.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import TypeVar

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from polymorph.alignment.accumulator import MomentAccumulator, moment_bytes
from polymorph.alignment.fit import orthogonal, r2_from_moments
from polymorph.alignment.moments import PairMoments

T = TypeVar("T")
SITES, MEMBERS, BLOCKS, DOCUMENT, CHUNK = 7, 9, 16, 64, 16_384
RATE = 5e10  # float64 operations a second, assumed only to plan what fits into the budget
SVD = 60  # operations of a decomposition in units of d³ at that rate, likewise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=120, help="seconds for one cell of the table")
    parser.add_argument("--memory-of", type=int, nargs=3, metavar=("MEMBERS", "TOKENS", "D"))
    options = parser.parse_args()
    if options.memory_of:
        _report_memory(*options.memory_of, options.device)
        return
    d, tokens, rounds, budget = 512, 65_536, options.rounds, options.budget
    if options.quick:
        d, tokens, rounds, budget = 64, 4_096, 1, 0.5
    print(f"{torch.get_num_threads()} threads, {options.device}, load average {os.getloadavg()[0]:.2f}")
    against_scipy(d, tokens, rounds, options.device)
    memory(d, tokens, options.device)
    table((64,) if options.quick else (64, 512, 1024, 2048, 4096), tokens, budget, options.device)
    print(f"load average {os.getloadavg()[0]:.2f}")


def against_scipy(d: int, tokens: int, rounds: int, device: str) -> None:
    """Seconds a pair in each round, side by side, and what they come to for the whole cohort."""
    pairs = list(combinations(range(MEMBERS), 2))
    scipy_pairs = [*pairs[:3], (1, 2), (1, 3), (2, 3)]
    kept = torch.cat(list(_members(4, MEMBERS, tokens, d)), dim=1)
    centred = [x.double().sub_(x.mean(0, dtype=torch.float64)).numpy() for x in kept]
    del kept
    seen: dict[str, list[float]] = {"accumulate": [], "fit": [], "scipy fit": [], "scipy r2": []}
    for _ in range(rounds):
        gathered, moments = accumulate(MEMBERS, pairs, tokens, d, device)
        seconds, r2 = timed(lambda moments=moments: fitted(moments))
        seen["accumulate"].append(gathered / len(pairs))
        seen["fit"].append(seconds / len(pairs))
        alone = [procrustes(centred[i], centred[j]) for i, j in scipy_pairs]
        seen["scipy fit"].append(statistics.mean(fit for fit, _, _ in alone))
        seen["scipy r2"].append(statistics.mean(score for _, score, _ in alone))
        theirs = [value for _, _, value in alone]
        ours = [float(r2[pairs.index(pair)]) for pair in scipy_pairs]
        worst = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        if worst > 1e-6:
            raise AssertionError(f"R² differs from scipy's by {worst}")
    print(
        f"\nd = {d}, {tokens:,} tokens, R² as scipy's to {worst:.1e}; all = {len(pairs)} pairs × {SITES} sites"
    )
    _compare(seen, len(pairs) * SITES)


def _compare(seen: dict[str, list[float]], all_pairs: int) -> None:
    rounds = [dict(zip(seen, values, strict=True)) for values in zip(*seen.values(), strict=True)]
    for name, values in seen.items():
        median = statistics.median(values)
        print(
            f"  {name:12} {1000 * median:9.1f} ms a pair, {median * all_pairs:8.1f} s for all (extrapolated)"
        )
    ways: dict[str, Callable[[dict[str, float]], float]] = {
        "once moments exist": lambda s: (s["scipy fit"] + s["scipy r2"]) / s["fit"],
        "once moments exist, scipy without R²": lambda s: s["scipy fit"] / s["fit"],
        "accumulation included": lambda s: (s["scipy fit"] + s["scipy r2"]) / (s["accumulate"] + s["fit"]),
        "accumulation of two splits included": lambda s: (
            (s["scipy fit"] + s["scipy r2"]) / (2 * s["accumulate"] + s["fit"])
        ),
    }
    for name, ratio in ways.items():
        values = [ratio(one) for one in rounds]
        print(f"  faster, {name}: {statistics.median(values):.2f} × ({min(values):.2f} to {max(values):.2f})")


def memory(d: int, tokens: int, device: str) -> None:
    """Peak resident memory of a process that streams and fits, at once and twice the tokens."""
    pairs = MEMBERS * (MEMBERS - 1) // 2
    held = moment_bytes(MEMBERS, pairs, d, BLOCKS)
    print(
        f"\nmemory, {MEMBERS} members, d = {d}: {held / 2**20:,.0f} MiB of sums of one site in {BLOCKS} blocks"
    )
    for many in (tokens, 2 * tokens):
        arguments = [sys.executable, "-m", "benchmarks.alignment", "--device", device]
        arguments += ["--memory-of", str(MEMBERS), str(many), str(d)]
        peak = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()
        print(f"  {many:9,} tokens: {peak}")


def _report_memory(members: int, tokens: int, d: int, device: str) -> None:
    pairs = list(combinations(range(members), 2))
    fitted(accumulate(members, pairs, tokens, d, device)[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    on_device = torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else 0
    print(f"peak {peak:,.0f} MiB resident" + (f", {on_device:,.0f} MiB on the device" if on_device else ""))


def table(sizes: tuple[int, ...], tokens: int, budget: float, device: str) -> None:
    """Seconds for all pairs of one site; a case over the budget is extrapolated from fewer members and tokens."""
    print(
        f"\none site, {tokens:,} tokens: moments, then maps with R², seconds; sums in {BLOCKS} blocks and in 1, GiB"
    )
    for d in sizes:
        for members in (2, 9, 32):
            pairs = members * (members - 1) // 2
            few, some = _within(members, tokens, d, budget)
            few_pairs = list(combinations(range(few), 2))
            gathered, moments = accumulate(few, few_pairs, some, d, device, blocks=1)
            shown = range(min(len(few_pairs), max(1, int(budget * RATE / 2 / (SVD * d**3)))))
            seconds, _ = timed(lambda moments=moments, shown=shown: fitted(moments[list(shown)]))
            gathered *= (members + pairs) / (few + len(few_pairs)) * tokens / some
            seconds *= pairs / len(shown)
            full = (few, some, len(shown)) == (members, tokens, pairs)
            how = (
                "measured"
                if full
                else f"extrapolated from {few} members, {some:,} tokens, {len(shown)} pairs"
            )
            held = [moment_bytes(members, pairs, d, blocks) / 2**30 for blocks in (BLOCKS, 1)]
            print(
                f"  d {d:5} members {members:3}: {gathered:9.2f} {seconds:9.2f}   {held[0]:9.3f} {held[1]:8.3f}   {how}"
            )


def _within(members: int, tokens: int, d: int, budget: float) -> tuple[int, int]:
    """Members and tokens to measure with: half the budget for products, and at most 2 GiB of sums."""
    few = members
    while few > 2 and moment_bytes(few, few * (few - 1) // 2, d, 1) > 2**31:
        few -= 1
    affordable = int(budget / 2 * RATE / (2 * d**2 * (few * (few + 1) // 2)))
    return few, min(tokens, max(affordable // DOCUMENT * DOCUMENT, 4 * d))


def accumulate(
    members: int, pairs: list[tuple[int, int]], tokens: int, d: int, device: str, blocks: int = BLOCKS
) -> tuple[float, PairMoments]:
    """Total moments, and the seconds that they took without the generation of the tokens."""
    accumulator, seconds = MomentAccumulator(pairs, blocks), 0.0
    for at, x in enumerate(_members(members, members, tokens, d, device)):
        document = (torch.arange(x.shape[1]) + at * CHUNK) // DOCUMENT
        seconds += timed(lambda x=x, document=document: accumulator.update(x, document))[0]
    took, moments = timed(accumulator.total)
    return seconds + took, moments


def fitted(moments: PairMoments) -> Tensor:
    """R² of the orthogonal map of every pair, from fresh moments; one pair at a time bounds the memory."""
    each = (moments[[pair]] for pair in range(len(moments.n)))
    return torch.cat([r2_from_moments(orthogonal(one), one) for one in each])


def procrustes(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Seconds of the fit, seconds of its R² token by token, and the R², on centred tokens."""
    fit, R = timed(lambda: orthogonal_procrustes(x, y)[0])
    score, r2 = timed(lambda: 1 - np.square(x @ R - y).sum() / np.square(y).sum())
    return fit, score, float(r2)


def timed(action: Callable[[], T]) -> tuple[float, T]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def _members(few: int, members: int, tokens: int, d: int, device: str = "cpu") -> Iterator[Tensor]:
    """Chunks [few n d], float32, of rotated and noisy copies of one stream with falling variances and a mean."""
    scales = torch.linspace(0, -3, d).exp()
    turns = [torch.linalg.qr(_normal(member, d, d)).Q for member in range(few)]
    for at, start in enumerate(range(0, tokens, CHUNK)):
        n = min(CHUNK, tokens - start)
        z = _normal(members + at, n, d) * scales + 1
        noise = (0.1 * _normal(10_000 * (at + 1) + member, n, d) for member in range(few))
        yield torch.stack([z @ Q + e for Q, e in zip(turns, noise, strict=True)]).to(device)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


if __name__ == "__main__":
    main()
