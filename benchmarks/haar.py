"""Size and power of the tests against Haar, as tables in markdown.

    python -m benchmarks.haar [--d 64] [--simulations 2000] [--large 512] [--large-simulations 400]

Every entry is the share of simulated matrices rejected at level 0.05. Quick: --simulations 100 --large 0.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polymorph.alignment.haar import (
    REGISTERED,
    STATISTICS,
    WITHOUT_EIGENVALUES,
    haar,
    paper_ks,
    paper_ks_size,
    statistic_values,
)
from polymorph.alignment.haar_laws import law, p_value
from polymorph.alignment.rotation import determinant_sign

SIGNIFICANCE, CHUNK = 0.05, 100
DIMENSIONS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
Plant = Callable[[torch.Generator, int, int], Tensor]
"""Matrices [n d d] from (generator, n, d)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d", type=int, default=64)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=1999, help="draws of every law")
    parser.add_argument(
        "--large", type=int, default=512, help="d of the second table of sizes; 0 leaves it out"
    )
    parser.add_argument("--large-simulations", type=int, default=400, help="matrices, and draws of their law")
    options = parser.parse_args()
    print_powers(options.d, options.simulations, options.draws)
    print_smallest(options.simulations, options.draws)
    if options.large:
        print_large(options.large, options.large_simulations)


def print_powers(d: int, simulations: int, draws: int) -> None:
    """All statistics against all plants that d has room for."""
    names = tuple(STATISTICS)
    print(f"\nd = {d}, {simulations} simulations, laws of {draws} draws: share rejected at {SIGNIFICANCE}\n")
    print_row("alternative", *names, "registered pair", "paper's KS, uncalibrated")
    print_row(*["---"] * (len(names) + 3))
    for label, plant in plants(d).items():
        rejected = simulate(plant, d, simulations, draws, names, paper=True)
        print_row(label, *(f"{share:.3f}" for share in rejected.values()))


def print_smallest(simulations: int, draws: int) -> None:
    """From which d on the registered pair sees two blocks, and d/4 pinned dimensions."""
    print(f"\nThe registered pair by dimension, {simulations} simulations\n")
    print_row("d", "Haar", "2 blocks", "d/4 pinned dimensions", "d/4 privileged axes")
    print_row(*["---"] * 5)
    for d in DIMENSIONS:
        quarter = d // 4
        rows = (uniform, blocks_of(2), pinned(quarter), privileged(quarter))
        pairs = [simulate(plant, d, simulations, draws, REGISTERED)["pair"] for plant in rows]
        print_row(str(d), *(f"{share:.3f}" for share in pairs))


def print_large(d: int, simulations: int) -> None:
    """Sizes at a d where a matrix costs 0.1 s, and its eigenvalues 0.3 s more."""
    few = max(1, simulations // 10)
    print(f"\nSizes at d = {d}, det +1, {simulations} simulations, laws of as many draws\n")
    rejected = simulate(uniform_rotation, d, simulations, simulations, WITHOUT_EIGENVALUES)
    paper = f"paper's KS, uncalibrated ({few} simulations)"
    print_row(*WITHOUT_EIGENVALUES, "registered pair", paper)
    print_row(*["---"] * (len(WITHOUT_EIGENVALUES) + 2))
    print_row(*(f"{share:.3f}" for share in rejected.values()), f"{paper_ks_size(d, few, seed=1):.3f}")


def print_row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def simulate(
    plant: Plant, d: int, simulations: int, draws: int, names: Sequence[str], paper: bool = False
) -> dict[str, float]:
    """Share of rejections by each statistic, by the registered pair, and by the paper's test where asked."""
    generator = torch.Generator().manual_seed(20240607 + d)
    sizes = [min(CHUNK, simulations - start) for start in range(0, simulations, CHUNK)]
    chunks = [p_values(plant(generator, n, d), draws, names, paper) for n in sizes]
    pooled = {key: torch.cat([chunk[key] for chunk in chunks]) for key in chunks[0]}
    return {key: float((p <= SIGNIFICANCE).double().mean()) for key, p in pooled.items()}


def p_values(R: Tensor, draws: int, names: Sequence[str], paper: bool) -> dict[str, Tensor]:
    """p-values [n] of every matrix against the law of its determinant."""
    found = {}
    for name, values in statistic_values(R, names).items():
        found[name] = torch.empty_like(values)
        for sign in (1, -1):
            mine = determinant_sign(R) == sign
            if bool(mine.any()):
                null = law(name, R.shape[-1], (sign,), draws)
                found[name][mine] = p_value(values[mine], null, STATISTICS[name].tail)
    smaller = torch.stack([found[name] for name in REGISTERED]).amin(0)
    found["pair"] = (len(REGISTERED) * smaller).clamp(max=1)
    return found | ({"paper": paper_ks(R)} if paper else {})


def plants(d: int) -> dict[str, Plant]:
    """What a matrix could be instead, by name; the first is Haar itself."""
    counts = [k for k in (1, 2, 4, 8) if k < d]
    return {
        "Haar (size)": uniform,
        **{f"{k} pinned dimensions": pinned(k) for k in counts},
        **{f"{k} privileged axes": privileged(k) for k in counts},
        **{f"{k} diagonal blocks": blocks_of(k) for k in (2, 4, 16) if d % k == 0},
        "signed permutation": lambda generator, n, d: signed_permutations(generator, n, d),
    }


def uniform(generator: torch.Generator, n: int, d: int) -> Tensor:
    return haar(d, n, generator)


def uniform_rotation(generator: torch.Generator, n: int, d: int) -> Tensor:
    return haar(d, n, generator, 1)


def pinned(k: int) -> Plant:
    """The identity on a random subspace of k dimensions, Haar on the rest."""

    def draw(generator: torch.Generator, n: int, d: int) -> Tensor:
        Q = haar(d, n, generator)
        return Q @ _fixed(generator, n, d, k) @ Q.mT

    return draw


def privileged(k: int) -> Plant:
    """k random axes go to k random axes, with signs; the rest is Haar."""

    def draw(generator: torch.Generator, n: int, d: int) -> Tensor:
        left, right = (signed_permutations(generator, n, d) for _ in range(2))
        return left @ _fixed(generator, n, d, k) @ right

    return draw


def blocks_of(count: int) -> Plant:
    """Equal blocks on the diagonal, each Haar: the axes are privileged in groups."""

    def draw(generator: torch.Generator, n: int, d: int) -> Tensor:
        parts = [haar(d // count, n, generator) for _ in range(count)]
        return torch.stack([torch.block_diag(*part) for part in zip(*parts, strict=True)])

    return draw


def signed_permutations(generator: torch.Generator, n: int, d: int) -> Tensor:
    order = torch.stack([torch.randperm(d, generator=generator) for _ in range(n)])
    signs = torch.randint(2, (n, d, 1), generator=generator) * 2.0 - 1
    return signs * torch.eye(d, dtype=torch.float64)[order]


def _fixed(generator: torch.Generator, n: int, d: int, k: int) -> Tensor:
    ones = torch.eye(k, dtype=torch.float64)
    return torch.stack([torch.block_diag(ones, part) for part in haar(d - k, n, generator)])


if __name__ == "__main__":
    main()
