"""Are the rotations between members uniformly random ones? Statistics of R against their laws under Haar.

A cohort of n members has n − 1 independent maps, not n(n − 1)/2: those of the synchronised frames where every
two members are compared, else the pairs themselves. Each statistic is averaged over them. Nothing is said of
matrices that the data do not determine whole: the verdict is then refused, and no statistic is reported but the
paper's distance to a permutation, which is one of the fit alone.
"""

from collections.abc import Iterator
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.fit import orthogonal
from polymorph.alignment.haar import (
    REGISTERED,
    STATISTICS,
    WITHOUT_EIGENVALUES,
    paper_ks,
    permutation_distance,
)
from polymorph.alignment.haar_laws import DRAWS, HaarTest, haar_tests, registered_p
from polymorph.alignment.haar_refit import refit_values
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.support import support
from polymorph.alignment.synchronise import synchronise
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row

STUDY = "haar"
PAPER, PAPER_UNDETERMINED = "paper", "paper_undetermined"  # conventions: the latter is of the fit alone
REFITS = 199
LARGEST_REFIT = 128
"""Above this d a refit takes 0.1 s and more, and the law of exactly known matrices stands in: with every plane
determined to 0.1 rad and most of them far better, the two agree (docs/results/calibration.md)."""


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """For every site r, and where r = d the statistics, their laws, and p-values.

    `law` is `refit` (the estimation is repeated) or `exact` (R as if known). `registered` is the smaller p of
    the registered pair of tests, times two. The paper's uncalibrated Kolmogorov–Smirnov p stands beside. In the
    convention `paper` there is `permutation_distance` for every pair; where r < d, in `paper_undetermined`.
    """
    for site in evidence.sites:
        r, d = least_determined(evidence, site)
        yield evidence.row(STUDY, site, "fit", "determined_dimension", float(r), map="orthogonal")
        yield evidence.row(STUDY, site, "fit", "dimension", float(d), map="orthogonal")
        yield from _paper_rows(evidence, site, PAPER if r == d else PAPER_UNDETERMINED)
        if r < d:
            continue
        R, used = frames(evidence, site)
        names = tuple(STATISTICS) if d <= LARGEST_REFIT else WITHOUT_EIGENVALUES
        yield from _test_rows(evidence, site, "exact", haar_tests(R, names=names, draws=DRAWS))
        if d <= LARGEST_REFIT:
            generator = chunk_generator(evidence.seed, 2**30 + evidence.root.sites.index(site))
            fits = (replace(evidence, pairs=[pair], parent=evidence).at(site).fit[:, 0] for pair in used)
            nulls = [refit_values(fit, REFITS, generator) for fit in fits]
            yield from _test_rows(evidence, site, "refit", haar_tests(R, nulls))
        yield _row(evidence, site, "paper_ks_p", float(paper_ks(R).median()), "eigenangle_ks", "uncalibrated")


def least_determined(evidence: Evidence, site: str) -> tuple[int, int]:
    """(r, d): the least determined dimension of all pairs."""
    found = [support(part.at(site).fit, part.at(site).eval) for part in evidence.by_pairs()]
    return min(int(part.determined.min()) for part in found), found[0].strength.shape[-1]


def frames(evidence: Evidence, site: str) -> tuple[Float[Tensor, "frames d d"], list[PairLabel]]:
    """Independent maps, and the pair whose moments speak for the error of each."""
    fit, _ = evidence.totals(site)
    if evidence.complete and len(evidence.ends) > 2:
        turn = synchronise(fit, evidence.index).turn
        used = [evidence.pairs[evidence.index.index((0, i))] for i in range(1, len(turn))]
        return turn[1:].mT.contiguous(), used  # Q_0 = I, so Q_iᵀ takes member 0 to member i
    return orthogonal(fit).weight, list(evidence.pairs)


def _paper_rows(evidence: Evidence, site: str, convention: str) -> Iterator[Row]:
    """The paper's distance of every fitted R to the nearest permutation, whatever the data determine of it."""
    R = orthogonal(evidence.totals(site)[0]).weight
    for pair, distance in zip(evidence.pairs, permutation_distance(R).tolist(), strict=True):
        about = {**pair.columns(), "map": "orthogonal", "convention": convention}
        yield evidence.row(STUDY, site, "fit", "permutation_distance", distance, **about)


def _test_rows(evidence: Evidence, site: str, law: str, tests: dict[str, HaarTest]) -> Iterator[Row]:
    for name, test in tests.items():
        yield _row(evidence, site, "statistic", test.value, name, law)
        null = {"low": test.law_mean - 2 * test.law_sd, "high": test.law_mean + 2 * test.law_sd}
        yield _row(evidence, site, "statistic", test.law_mean, name, law, role="null", **null)
        yield _row(evidence, site, "z", test.z, name, law)
        yield _row(evidence, site, "p_value", test.p, name, law)
    if set(REGISTERED) <= tests.keys():
        yield _row(evidence, site, "p_value", registered_p(tests), "registered", law)


def _row(
    evidence: Evidence, site: str, metric: str, value: float, statistic: str, law: str, **about: object
) -> Row:
    extra = {"statistic": statistic, "law": law}
    return evidence.row(STUDY, site, "fit", metric, value, map="orthogonal", extra=extra, **about)
