"""The claims of every site: its verdict, and the tests of pairing, isometry and Haar."""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from polymorph.alignment.multiplicity import SIGNIFICANCE, benjamini_hochberg, holm
from polymorph.evidence.rows import sites_in_order
from polymorph.verdicts.bounds import GAP, LEAST_HAAR_DIMENSION
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.error_rate import error_rate
from polymorph.verdicts.findings import Finding, Haar, Isometry, Measured, Pairing, Refusal
from polymorph.verdicts.rule import verdict_of
from polymorph.verdicts.site import Site, Tables

Discovered = Mapping[str, Sequence[tuple[str, float]]]
"""Site → statistics and adjusted p-values."""


def site_claims(tables: Tables) -> list[Claim]:
    """The claims of all sites from the tables of the studies at the last step of every member.

    The primary family, adjusted by Holm, holds the pairing test and the registered Haar test of every site.
    """
    names = sites_in_order(tables["ladder"]) if "ladder" in tables else []
    sites = [Site.of(name, tables) for name in names]
    tests = {
        (study, site.name): p
        for site in sites
        for study in ("pairing", "haar")
        if (p := site.p_value(study)) is not None
    }
    adjusted = holm(tests)
    discovered = _secondary(sites)
    return [claim for site in sites for claim in _claims(site, adjusted, len(tests), discovered)]


def _claims(
    site: Site, adjusted: Mapping[tuple[str, str], float], tests: int, discovered: Discovered
) -> Iterator[Claim]:
    pairing = adjusted.get(("pairing", site.name))
    verdict = verdict_of(site, pairing, tests)
    yield Claim(site=site.name, finding=verdict, error_rate=error_rate(verdict.word))
    for finding in _others(site, pairing, adjusted.get(("haar", site.name)), tests, discovered):
        yield Claim(site=site.name, finding=finding)


def _others(
    site: Site, pairing: float | None, haar: float | None, tests: int, discovered: Discovered
) -> Iterator[Finding]:
    if pairing is not None:
        word = "related" if pairing < SIGNIFICANCE else "not shown"
        yield Pairing(word=word, decided_by=_p_value(pairing), tests=tests)
    related = pairing is None or pairing < SIGNIFICANCE
    if (isometry := _isometry(site)) is not None and related:
        yield isometry
    if not site.haar.is_empty():
        yield _haar(site, haar, tests, related, discovered[site.name])


def _p_value(p: float | None) -> Measured:
    return Measured(statistic="p_value", value=p, bound=SIGNIFICANCE)


def _isometry(site: Site) -> Isometry | None:
    """Rejected where the lower bound of the orthogonality gap is above 0.01: a bare test would reject noise."""
    gap = site.gap("orthogonality_gap")
    if gap is None:
        return None
    word = {True: "rejected", False: "not rejected", None: "undetermined"}[gap.above(GAP)]
    return Isometry(word=word, decided_by=Measured.of("orthogonality_gap", gap, GAP))


def _haar(
    site: Site, p: float | None, tests: int, related: bool, discovered: Sequence[tuple[str, float]]
) -> Haar:
    measured = {row["metric"]: row["value"] for row in site.haar.iter_rows(named=True)}
    determined = int(measured["determined_dimension"]), int(measured["dimension"])
    refusal = _refusal(determined, p, related)
    departs = p is not None and p < SIGNIFICANCE
    return Haar(
        word="refused" if refusal else "departs from Haar" if departs else "not distinguished from Haar",
        decided_by=_p_value(p),
        tests=tests,
        determined=determined,
        refusal=refusal,
        discovered=tuple(discovered),
    )


def _refusal(determined: tuple[int, int], p: float | None, related: bool) -> Refusal | None:
    """Why nothing may be said of Haar here; None where it may."""
    r, d = determined
    if not related:
        return "not_related"
    if r < d:
        return "partly_determined"
    if d < LEAST_HAAR_DIMENSION and (p is None or p >= SIGNIFICANCE):
        return "little_power"
    return "not_tested" if p is None else None


def _secondary(sites: Sequence[Site]) -> dict[str, list[tuple[str, float]]]:
    """Statistics outside the primary family that depart from Haar, site by site, after Benjamini–Hochberg."""
    tests = {}
    for site in sites:
        if site.haar.is_empty():
            continue
        rows = site.haar.filter(pl.col("metric").eq("p_value") & pl.col("statistic").ne("registered"))
        for row in rows.sort("law").iter_rows(named=True):  # `refit` replaces `exact`
            tests[site.name, row["statistic"]] = float(row["value"])
    adjusted = benjamini_hochberg(tests)
    found: dict[str, list[tuple[str, float]]] = {site.name: [] for site in sites}
    for (name, statistic), p in adjusted.items():
        if p < SIGNIFICANCE:
            found[name].append((statistic, p))
    return found
