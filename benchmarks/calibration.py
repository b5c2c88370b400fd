"""Error rates on planted truth: verdicts, coverage of intervals, size of the pairing test.

    python -m benchmarks.calibration [--draws 40] [--simulations 500] [--quick] [--write docs/results]

Every draw of a plant has its own d, rank, noise, condition, number of pinned dimensions and seed. A rate is
accepted inside the 99.9 % binomial band around its nominal value. Sizes and powers of the Haar statistics are
tabulated by `python -m benchmarks.haar`. With `--write`, the verdicts given become the error rates that claims tell.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.stats import binom
from scipy.stats import t as student

from polymorph.alignment.collect import collect
from polymorph.alignment.fit import orthogonal, r2_from_moments, similarity
from polymorph.alignment.gaps import Scores
from polymorph.alignment.moments import PairMoments
from polymorph.alignment.permutation import pairing_test
from polymorph.alignment.regression import affine
from polymorph.alignment.support import support
from polymorph.evidence.evidence import BLOCKS, planted_evidence
from polymorph.evidence.planted import SITE, Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.models.activations import Activations
from polymorph.studies.claims import claims_of
from polymorph.studies.tables import study_tables
from polymorph.verdicts.error_rate import RATES

STUDIES = ("pairing", "ladder", "support", "haar")
Draw = dict[str, Any]
Found = dict[str, Any]
"""The claims of the site by the first word of their id, and `tables`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=40, help="cohorts of each plant")
    parser.add_argument("--simulations", type=int, default=500, help="for sizes and coverages")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that it runs")
    parser.add_argument("--write", type=Path, help="folder for calibration.md; the rates go into the package")
    options = parser.parse_args()
    torch.set_num_threads(1)
    draws, simulations = (2, 20) if options.quick else (options.draws, options.simulations)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        verdicts = [_verdicts(name, draws, pool) for name in PLANTS]
    rates = [*_coverages(simulations), *_sizes(simulations)]
    text = "\n".join([*_verdict_table(verdicts), "", *_rate_table(rates)])
    print(text)
    if options.write:
        (options.write / "calibration.md").write_text(text + "\n")
        RATES.write_text(json.dumps(_given(verdicts), indent=1) + "\n")


def _given(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """The true verdict → the verdict given → how many cohorts, over all plants."""
    total: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for truth, given in row["given"].items():
            total[truth] += given
    return {truth: dict(given.most_common()) for truth, given in sorted(total.items())}


def _draw(plant: str, number: int) -> Draw:
    """Settings of one cohort, spread over what a user may meet; a function of the plant and the number."""
    rng = np.random.default_rng([number, *plant.encode()])
    d = int(rng.choice([16, 24, 32, 48, 64]))
    return {
        "d": d,
        "members": int(rng.integers(3, 5)),
        "noise": float(rng.choice([0.0, 0.01, 0.05, 0.1, 0.15])),
        "rank": int(rng.integers(2, d // 2)),
        "condition": float(rng.choice([1.5, 2, 3, 9])),
        "scale": float(rng.choice([0.7, 1.2, 1.5, 3])),
        "pinned": int(rng.integers(d // 6 + 2, d // 2 + 1)),
        "axes": int(rng.integers(d // 8 + 2, d // 2 + 1)),
        "share": float(rng.choice([0.3, 0.5, 0.6, 0.8] if plant != "bent" else [0.5, 0.6, 0.8])),
        "documents": 512,
        "tokens": 16,
        "seed": number,
    }


def _is(*verdicts: str) -> Callable[[Found, Draw], bool]:
    return lambda claims, draw: claims["verdict"].verdict in verdicts


def _undetermined_on(word: str, r: str) -> Callable[[Found, Draw], bool]:
    """Undetermined with r̂ = r ± 1, Haar refused, and the verdict on the support."""

    def holds(claims: Found, draw: Draw) -> bool:
        found = claims["verdict"]
        near = found.value is not None and abs(found.value - draw[r]) <= 1
        told = found.finding.relation_on_support == word
        return found.verdict == "undetermined" and near and told and claims["haar"].verdict == "refused"

    return holds


def _departs(metric: str | None = None, key: str = "") -> Callable[[Found, Draw], bool]:
    """Haar is rejected, and the least count k̂ of all pairs is k ± 1.

    Of every single pair that cannot be asked: what no member pins is turned by a random rotation, and in about
    d·2τ/π of them it has a plane that it turns by less than the error τ, which is pinned for all one can see.
    What every pair leaves where it is cannot be such a plane.
    """

    def holds(claims: Found, draw: Draw) -> bool:
        counted = metric is None or abs(min(_of_pairs(claims, metric)) - draw[key]) <= 1
        return claims["haar"].verdict == "departs from Haar" and counted

    return holds


def _pinned_low_rank(claims: Found, draw: Draw) -> bool:
    pinned = all(count == draw["rank"] for count in _of_pairs(claims, "pinned_dimension"))
    return pinned and _undetermined_on("rotation", "rank")(claims, draw)


def _share(claims: Found, draw: Draw) -> bool:
    shares = claims["tables"]["ladder"].filter(pl.col("metric") == "ladder_share")["value"]
    near = all(abs(share - draw["share"] * (1 - draw["noise"] ** 2)) <= 0.03 for share in shares)
    return near and claims["verdict"].verdict == "undetermined"


def _of_pairs(claims: Found, metric: str) -> list[float]:
    rows = claims["tables"]["support"].filter((pl.col("metric") == metric) & (pl.col("role") == "estimate"))
    return rows["value"].to_list()


PLANTS: dict[str, tuple[str, str, str, Callable[[Found, Draw], bool]]] = {
    "P1 rotated": ("rotated", "rotation", "", _is("rotation")),
    "P2 rotated, low rank": (
        "rotated_low_rank",
        "undetermined",
        "r ± 1, rotation on the support, Haar refused",
        _undetermined_on("rotation", "rank"),
    ),
    "P3 same basis, low rank": (
        "same_basis_low_rank",
        "undetermined",
        "r ± 1, pinned dimension = rank, Haar refused",
        _pinned_low_rank,
    ),
    "P4 affine": ("affine", "affine", "", _is("affine")),
    "P5 similarity": ("similarity", "similarity", "", _is("similarity")),
    "P6 unrelated": ("unrelated", "unrelated", "", _is("unrelated")),
    "P7 pinned dimensions": (
        "pinned",
        "rotation",
        "departs from Haar, k ± 1",
        _departs("pinned_dimension", "pinned"),
    ),
    "P7 privileged axes": (
        "privileged",
        "rotation",
        "departs from Haar, k ± 1",
        _departs("privileged_axes", "axes"),
    ),
    "P7 block-diagonal": ("block_diagonal", "rotation", "departs from Haar", _departs()),
    "P8 reflected": ("reflected", "orthogonal", "", _is("orthogonal")),
    "P9 partial": ("partial", "undetermined", "ladder share ± 0.03", _share),
    "bent": ("bent", "related, beyond affine", "", _is("related, beyond affine")),
}
"""Kind, the verdict that is true of it, what else must come out, and whether all of it did."""


def _verdicts(name: str, draws: int, pool: Executor) -> dict[str, Any]:
    """How many cohorts of the plant came out wrong, and the verdicts given for each that is true."""
    found = list(pool.map(_judged, [name] * draws, range(draws)))
    wrong = [told for _, _, right, told in found if not right]
    given: dict[str, Counter[str]] = defaultdict(Counter)
    for truth, verdict, _, _ in found:
        given[truth][verdict] += 1
    print(f"{name}: {len(wrong)} of {draws} wrong", *wrong, sep="\n    ", flush=True)
    return {"plant": name, "draws": draws, "wrong": len(wrong), "given": given}


def _judged(name: str, number: int) -> tuple[str, str, bool, str]:
    """The verdict that is true of one cohort, the one it was given, whether all came out, and what did."""
    torch.set_num_threads(1)
    kind, _, _, holds = PLANTS[name]
    draw = _draw(name, number)
    planted = Planted(kind, PlantedConfig(**draw))
    tables, _ = study_tables(planted_evidence(planted), STUDIES)
    claims: Found = {claim.kind: claim for claim in claims_of(tables)} | {"tables": tables}
    verdict = claims["verdict"].verdict
    told = f"{_short(draw)}: {verdict}, {claims['haar'].verdict}"
    return _truth(name, planted), verdict, holds(claims, draw), told


def _truth(name: str, planted: Planted) -> str:
    """Of isometries, whether one of them reflects is a matter of the draw."""
    verdict = PLANTS[name][1]
    reflects = torch.linalg.det(planted.truth.weights).sign().unique().numel() > 1
    return "orthogonal" if verdict == "rotation" and reflects else verdict


def _short(draw: Draw) -> str:
    return ", ".join(f"{key}={value:g}" for key, value in draw.items())


def _coverages(simulations: int) -> Iterator[tuple[str, int, int, float]]:
    """Of the angle of a plane chosen beforehand, and of R² and its gaps given the fitted maps."""
    config = {"d": 16, "members": 2, "documents": 128, "tokens": 8, "noise": 0.15}
    covered = dict.fromkeys(
        ("angle of a plane", "R² of orthogonal", "similarity gap", "orthogonality gap"), 0
    )
    for seed in range(simulations):
        planted = Planted("affine", PlantedConfig(**config, condition=1.5, seed=seed))
        moments = collect(planted, [(0, 1)], BLOCKS, seed).at(SITE)
        population = _population(planted)
        maps = {fit.__name__: fit(moments.fit.total()) for fit in (orthogonal, similarity, affine)}
        true = {name: r2_from_moments(fitted, population) for name, fitted in maps.items()}
        scores = Scores(moments.eval)
        gaps = scores.gaps(maps)
        held = {
            "R² of orthogonal": (scores.r2(maps["orthogonal"])[1], true["orthogonal"]),
            "similarity gap": (gaps["similarity_gap"][1], true["affine"] - true["similarity"]),
            "orthogonality gap": (gaps["orthogonality_gap"][1], true["affine"] - true["orthogonal"]),
        }
        for name, (bounds, truth) in held.items():
            assert bounds is not None
            covered[name] += bool(bounds[0] <= truth <= bounds[1])
        covered["angle of a plane"] += _angle_covered(Planted("rotated", PlantedConfig(**config, seed=seed)))
    for name, count in covered.items():
        yield name, count, simulations, 0.95


def _angle_covered(planted: Planted) -> bool:
    """Whether 0 ± t·SE holds the true skew error of the plane of the first and the fourth direction."""
    moments = collect(planted, [(0, 1)], BLOCKS, 0).at(SITE)
    found = support(moments.fit, moments.eval)[0]
    turn = found.left.T @ planted.truth.rotation(0, 1) @ found.right
    error = float((turn - turn.T)[0, 3] / 2)
    return abs(error) <= float(student.ppf(0.975, BLOCKS - 1) * found.standard_error[0, 3])


def _population(planted: Planted) -> PairMoments:
    """Moments of infinitely many tokens of members 0 and 1, scaled to n = 1."""
    truth, noise = planted.truth, planted.config.noise
    first, second = (truth.spectrum[:, None] * truth.weights[i] for i in (0, 1))
    own = [
        noise**2 * part.square().sum() / planted.config.d * torch.eye(planted.config.d)
        for part in (first, second)
    ]
    shared = torch.diag(1 - truth.own).double()
    return PairMoments(
        torch.ones(1).double(),
        truth.means[None, 0],
        truth.means[None, 1],
        (first.T @ first + own[0])[None],
        (second.T @ second + own[1])[None],
        (first.T @ shared @ second)[None],
    )


def _sizes(simulations: int) -> Iterator[tuple[str, int, int, float]]:
    """The pairing test on unrelated members that share what position explains."""
    rejected = {"one pair": 0, "all pairs of three members": 0}
    for seed in range(simulations):
        config = PlantedConfig(d=8, members=3, documents=48, tokens=6, position=0.4, seed=seed)
        chunk = next(Planted("unrelated", config).chunks("fit"))
        test = pairing_test(
            _ragged(chunk), SITE, [(0, 1), (0, 2), (1, 2)], 99, torch.Generator().manual_seed(seed)
        )
        rejected["one pair"] += bool(test.p_values[0] <= 0.05)
        rejected["all pairs of three members"] += test.p_value <= 0.05
    for name, count in rejected.items():
        yield f"pairing test, {name}", count, simulations, 0.05


def _ragged(chunk: Activations) -> Activations:
    """Documents of unequal lengths: every third token from the fourth position on is dropped."""
    kept = (chunk.position < 4) | (chunk.document % 3 > 0)
    values = {site: x[:, kept] for site, x in chunk.values.items()}
    return Activations(values, chunk.document[kept], chunk.position[kept])


def _verdict_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| plant | true verdict | must come out as well | cohorts | wrong |", "|---|---|---|---|---|"]
    for row in rows:
        _, verdict, beside, _ = PLANTS[row["plant"]]
        lines.append(f"| {row['plant']} | {verdict} | {beside} | {row['draws']} | {row['wrong']} |")
    return lines


def _rate_table(rates: list[tuple[str, int, int, float]]) -> list[str]:
    lines = ["| rate | found | nominal | 99.9 % band | simulations |", "|---|---|---|---|---|"]
    for name, count, n, nominal in rates:
        low, high = (int(end) / n for end in binom.interval(0.999, n, nominal))
        inside = "" if low <= count / n <= high else " (outside)"
        lines.append(f"| {name} | {count / n:.3f}{inside} | {nominal} | {low:.3f} to {high:.3f} | {n} |")
    return lines


if __name__ == "__main__":
    main()
