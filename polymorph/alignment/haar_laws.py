"""What the statistics of `haar` are worth: their Monte-Carlo laws, p-values, and the tests of a cohort's frames.

The determinant of a determined matrix is known, so every law is that of its own half of O(d).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from polymorph.alignment.haar import (
    REGISTERED,
    STATISTICS,
    WITHOUT_EIGENVALUES,
    Tail,
    haar,
    statistic_values,
)
from polymorph.alignment.rotation import determinant_sign

DRAWS = 999  # a p-value is a multiple of 1/1000; at d = 512 they take a minute and a half, once per process
CHUNK_NUMBERS = 2**20  # float64 numbers drawn together: 8 MiB, with QR and powers about 200 MiB in all


@lru_cache(maxsize=256)
def law(
    name: str, d: int, determinants: tuple[int, ...], draws: int = DRAWS, seed: int = 0
) -> Float64[Tensor, "draws"]:
    """The law of the mean of a statistic over independent Haar frames, one per determinant: draws, ascending.

    One frame is a tuple of one. Means of several are made of the single draws, in an independent random order
    per frame: the error of their common mean, sd/√draws of a single frame, stays below that of a frame mean by
    √(frames/draws). The tensor is cached: read it, do not write to it.
    """
    if d < 2 or draws < 1 or not determinants or not set(determinants) <= {1, -1}:
        raise ValueError(f"no law for d = {d}, determinants {determinants} and {draws} draws")
    slow = STATISTICS[name].by_eigenvalues
    single = {sign: _single_draws(d, sign, draws, seed, slow)[name] for sign in set(determinants)}
    generator = _generator(seed, d, len(determinants))
    frames = [single[sign][torch.randperm(draws, generator=generator)] for sign in sorted(determinants)]
    return torch.stack(frames).mean(0).sort().values


def p_value(
    values: Float64[Tensor, "*batch"], null: Float64[Tensor, "draws"], tail: Tail
) -> Float64[Tensor, "*batch"]:
    """(1 + #{T* ≥ T})/(B + 1) [*batch], from B null draws in any order; two-sided, twice the smaller side.

    Never 0, and P(p ≤ α) ≤ α for the upper side if T is one more draw of the null.
    """
    if not bool(torch.isfinite(values).all() and torch.isfinite(null).all()) or not len(null):
        raise ValueError("a p-value needs finite values and at least one finite null draw")
    ordered = null.sort().values
    above = len(null) - torch.searchsorted(ordered, values.contiguous())
    if tail == "upper":
        return (1 + above) / torch.tensor(len(null) + 1.0, dtype=torch.float64)
    below = torch.searchsorted(ordered, values.contiguous(), right=True)
    smaller = (1 + torch.minimum(above, below)) / torch.tensor(len(null) + 1.0, dtype=torch.float64)
    return (2 * smaller).clamp(max=1)


@dataclass(frozen=True)
class HaarTest:
    """One statistic, averaged over frames, against Haar: z = (value − law_mean)/law_sd, `p` by ranks."""

    value: float
    p: float
    z: float
    law_mean: float
    law_sd: float
    draws: int


def haar_tests(
    R: Float64[Tensor, "frames d d"],
    nulls: Sequence[Mapping[str, Tensor]] | None = None,
    names: Sequence[str] = WITHOUT_EIGENVALUES,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, HaarTest]:
    """Test the mean of each statistic over the frames of a cohort; a single pair is one frame.

    The frames must be independent under Haar (the n − 1 synchronised frames of n members are; the n(n − 1)/2
    pairs are not). Without `nulls` the matrices count as known exactly. With them, one `refit_values` per
    frame, draw b of the null is the mean over the frames of their b-th values.
    """
    determinants = tuple(sorted(int(sign) for sign in determinant_sign(R)))
    if nulls is not None and len(nulls) != len(R):
        raise ValueError(f"{len(R)} frames need as many null draws, got {len(nulls)}")
    tests = {}
    for name, values in statistic_values(R, names).items():
        null = law(name, R.shape[-1], determinants, draws, seed) if nulls is None else _mean_of(nulls, name)
        tests[name] = _test(values.mean(), null, STATISTICS[name].tail)
    return tests


def registered_p(tests: Mapping[str, HaarTest]) -> float:
    """min(1, 2·min p) over the two registered tests (Bonferroni): small if either departs from Haar."""
    return min(1.0, len(REGISTERED) * min(tests[name].p for name in REGISTERED))


def chunk_sizes(d: int, n: int) -> Iterator[int]:
    """Numbers of d × d matrices to hold at a time, that sum to n."""
    size = max(1, CHUNK_NUMBERS // d**2)
    yield from (min(size, n - start) for start in range(0, n, size))


@lru_cache(maxsize=64)
def _single_draws(d: int, determinant: int, draws: int, seed: int, slow: bool) -> dict[str, Tensor]:
    """Statistics [draws] of the same Haar matrices, all at once: drawing them is most of the cost."""
    names = tuple(name for name in STATISTICS if STATISTICS[name].by_eigenvalues == slow)
    generator = _generator(seed, d, determinant + 1)
    chunks = [statistic_values(haar(d, n, generator, determinant), names) for n in chunk_sizes(d, draws)]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in names}


def _test(value: Tensor, null: Tensor, tail: Tail) -> HaarTest:
    mean, sd = float(null.mean()), float(null.std())
    p = float(p_value(value, null, tail))
    return HaarTest(float(value), p, (float(value) - mean) / sd, mean, sd, len(null))


def _mean_of(nulls: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    lengths = {len(frame[name]) for frame in nulls}
    if len(lengths) > 1:
        raise ValueError(f"the frames have unequal numbers of null draws: {sorted(lengths)}")
    return torch.stack([frame[name] for frame in nulls]).mean(0)


def _generator(*key: int) -> torch.Generator:
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
