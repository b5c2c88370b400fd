"""The verdict of a site: which family of maps relates its members, decided in a fixed order by interval bounds.

1. *unrelated*: the pairing test is not rejected (Holm, p ≥ 0.05);
2. *undetermined*: the data determine fewer dimensions of R than there are, with the verdict on those beside it;
3. *related, beyond affine*: ceiling − affine > 0.05;
4. *affine*: affine − similarity > 0.01;
5. *similarity*: similarity − orthogonal > 0.01;
6. else *rotation*, or *orthogonal* where a pair has det R = −1.

A bound is passed, or not, where every pair agrees with its whole interval, else where the interval of the mean
over seeds says so; where neither does, the verdict is *undetermined*.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from polymorph.alignment.multiplicity import LEVEL, benjamini_hochberg, holm
from polymorph.evidence.rows import ON_SUPPORT, sites_in_order
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.error_rate import error_rate
from polymorph.verdicts.estimate import Estimate, estimate

BEYOND_AFFINE = 0.05
GAP = 0.01
LEAST_HAAR_DIMENSION = 12
"""Below it the registered pair of tests misses a block-diagonal rotation too often to let Haar pass."""
WHOLE = "whole"

Tables = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Site:
    """The rows of one site that its verdict is decided by; empty where a study was not asked for."""

    name: str
    ladder: pl.DataFrame
    support: pl.DataFrame
    pairing: pl.DataFrame
    haar: pl.DataFrame

    @classmethod
    def of(cls, name: str, tables: Tables) -> "Site":
        empty = pl.DataFrame(schema={"site": pl.String})
        parts = (tables.get(study, empty) for study in ("ladder", "support", "pairing", "haar"))
        return cls(name, *(part.filter(pl.col("site") == name) for part in parts))

    def gap(self, metric: str, basis: str = WHOLE) -> Estimate | None:
        """A difference of R² between two rungs, over all of R or on its determined support."""
        frame = self.ladder if basis == WHOLE else self.support
        if frame.is_empty():
            return None
        rows = frame.filter((pl.col("metric") == metric) & (pl.col("role") == "estimate"))
        return estimate(rows if basis == WHOLE else rows.filter(pl.col("convention") == ON_SUPPORT))

    def r2(self, name: str, role: str = "estimate") -> Estimate | None:
        rows = self.ladder.filter(
            pl.col("metric").eq("r2") & pl.col("map").eq(name) & pl.col("role").eq(role)
        )
        return estimate(rows)

    @property
    def ceiling(self) -> tuple[float, str]:
        """What an affine map reaches between neighbouring late checkpoints of one member; 1 without those."""
        rows = self.r2("affine", "ceiling")
        if rows is None:
            return 1.0, "1, no member being read at two steps"
        return rows.value, "that of one member at neighbouring steps"

    @property
    def dimensions(self) -> tuple[int, int] | None:
        """(r, d), with r the least of all pairs; None if it was not measured."""
        if self.support.is_empty():
            return self._dimensions_of_the_ladder
        rows = self.support.filter(pl.col("role") == "estimate")
        r, d = (
            rows.filter(pl.col("metric") == name)["value"] for name in ("determined_dimension", "dimension")
        )
        return int(r.min()), int(d.max())  # type: ignore[arg-type]

    @property
    def _dimensions_of_the_ladder(self) -> tuple[int, int] | None:
        """The same without the study of the support: the scale that the ladder states for ‖R − I‖ is √(2d)."""
        rows = self.ladder.filter(pl.col("role") == "estimate")
        r, scale = (
            rows.filter(pl.col("metric") == name)["value"]
            for name in ("determined_dimension", "frobenius_haar_scale")
        )
        if r.is_empty() or scale.is_empty():
            return None
        return int(r.min()), round(float(scale.max()) ** 2 / 2)  # type: ignore[arg-type]

    @property
    def reflections(self) -> tuple[int, int]:
        """Pairs with det R = −1, and pairs."""
        rows = self.ladder.filter(pl.col("metric").eq("determinant") & pl.col("role").eq("estimate"))
        rows = rows.filter(pl.col("source") < pl.col("target"))
        return int((rows["value"] < 0).sum()), rows.height

    def p_value(self, study: str) -> float | None:
        """Of the test for all members together that belongs to the primary family."""
        frame = self.pairing if study == "pairing" else self.haar
        if frame.is_empty():
            return None
        rows = frame.filter(pl.col("metric").eq("p_value") & pl.col("source").is_null())
        if study == "haar":
            rows = rows.filter(pl.col("statistic") == "registered").sort("law", descending=True)
        return None if rows.is_empty() else float(rows["value"][0])


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
    site: Site, adjusted: Mapping[tuple[str, str], float], tests: int, discovered: Mapping[str, Sequence[str]]
) -> Iterator[Claim]:
    pairing = adjusted.get(("pairing", site.name))
    verdict = _verdict(site, pairing, tests)
    yield verdict
    if pairing is not None:
        yield _pairing(site, pairing, tests)
    related = pairing is None or pairing < LEVEL
    if (isometry := _isometry(site)) is not None and related:
        yield isometry
    if not site.haar.is_empty():
        yield _haar(site, adjusted.get(("haar", site.name)), tests, related, discovered[site.name])


def _verdict(site: Site, pairing: float | None, tests: int) -> Claim:
    if pairing is not None and pairing >= LEVEL:
        reason = f"permuting documents reaches the observed relation: p = {pairing:.3g} after Holm over {tests} tests"
        return _said(site, "unrelated", reason, value=pairing, threshold=LEVEL)
    if site.dimensions is not None and (r := site.dimensions[0]) < (d := site.dimensions[1]):
        beside = "nothing can be said of it"
        if site.support.is_empty():
            beside = "the study of the support, which was not made here, tells what holds on those"
        if r > 0 and (on_support := _family(site, ON_SUPPORT)) is not None:
            beside = f"on those: {on_support.verdict}, because {on_support.reason}"
        reason = f"R is undetermined: the data determine {r} of {d} dimensions; {beside}"
        return _said(site, "undetermined", reason, value=float(r), threshold=float(d))
    found = _family(site, WHOLE)
    return found or _said(site, "undetermined", "the ladder of maps was not measured here")


def _family(site: Site, basis: str) -> Claim | None:
    """Steps 3 to 6, over all of R or on its support."""
    affine = site.r2("affine") if basis == WHOLE else site.gap("r2_affine", basis)
    if affine is None:
        return None
    ceiling, origin = site.ceiling
    steps = (
        (
            "related, beyond affine",
            affine.below(ceiling),
            BEYOND_AFFINE,
            f"R² of affine below the ceiling ({origin})",
        ),
        ("affine", site.gap("similarity_gap", basis), GAP, "gap of affine over similarity"),
        ("similarity", site.gap("scale_gap", basis), GAP, "gap of similarity over orthogonal"),
    )
    last = None
    for verdict, measured, threshold, what in steps:
        if measured is None:
            return None
        decided = measured.above(threshold)
        numbers = {
            "value": measured.value,
            "low": measured.low,
            "high": measured.high,
            "threshold": threshold,
        }
        told = f"{what}: {_told(measured, threshold)}"
        if decided is None:
            reason = f"{told}, which does not settle whether it is above {threshold}"
            return _said(site, "undetermined", reason, **numbers)
        if decided:
            above = "" if "above" in told else f", above {threshold}"
            return _said(site, verdict, told + above, **numbers)
        last = numbers
    reflected, pairs = site.reflections if basis == WHOLE else (0, 0)
    gap = site.gap("orthogonality_gap", basis)
    reason = (
        f"no freer map gains more than {GAP}: gap of affine over orthogonal {_told(gap, GAP) if gap else ''}"
    )
    if reflected:
        reason += f"; det R = −1 in {reflected} of {pairs} pairs"
    return _said(site, "orthogonal" if reflected else "rotation", reason, **(last or {}))


def _said(site: Site, verdict: str, reason: str, **numbers: float | None) -> Claim:
    statement = f"{site.name}: {verdict}. {reason[0].upper()}{reason[1:]}."
    return Claim(
        id=f"verdict:{site.name}",
        site=site.name,
        statement=statement,
        verdict=verdict,
        reason=reason,
        error_rate=error_rate(verdict),
        **numbers,
    )


def _pairing(site: Site, p: float, tests: int) -> Claim:
    return Claim(
        id=f"pairing:{site.name}",
        site=site.name,
        statement=f"{site.name}: the members' activations are related beyond what position explains",
        verdict="related" if p < LEVEL else "not shown",
        reason=f"p = {p:.3g} after Holm over the primary family of {tests} tests",
        value=p,
        threshold=LEVEL,
    )


def _isometry(site: Site) -> Claim | None:
    """Rejected where the lower bound of the orthogonality gap is above 0.01: a bare test would reject noise."""
    gap = site.gap("orthogonality_gap")
    if gap is None:
        return None
    verdict = {True: "rejected", False: "not rejected", None: "undetermined"}[gap.above(GAP)]
    return Claim(
        id=f"isometry:{site.name}",
        site=site.name,
        statement=f"{site.name}: the members differ by an isometry",
        verdict=verdict,
        reason=f"gap of affine over orthogonal: {_told(gap, GAP)}, held against {GAP}",
        value=gap.value,
        low=gap.low,
        high=gap.high,
        threshold=GAP,
    )


def _haar(site: Site, p: float | None, tests: int, related: bool, discovered: Sequence[str]) -> Claim:
    refusal = _refusal(site, p, related)
    if p is None or refusal is not None:
        verdict, reason = "refused", refusal or "the registered tests were not made"
    else:
        verdict = "departs from Haar" if p < LEVEL else "not distinguished from Haar"
        reason = f"registered tests: p = {p:.3g} after Holm over the primary family of {tests} tests"
        if discovered:
            reason += f"; of the others, after Benjamini–Hochberg: {', '.join(discovered)}"
    return Claim(
        id=f"haar:{site.name}",
        site=site.name,
        statement=f"{site.name}: the rotations between members are like uniformly random ones",
        verdict=verdict,
        reason=reason,
        value=p,
        threshold=LEVEL,
    )


def _refusal(site: Site, p: float | None, related: bool) -> str | None:
    """Why nothing may be said of Haar here; None where it may."""
    measured = {row["metric"]: row["value"] for row in site.haar.iter_rows(named=True)}
    r, d = int(measured["determined_dimension"]), int(measured["dimension"])
    if not related:
        return "the members are not shown to be related: what is fitted is noise, which looks random"
    if r < d:
        return f"R is undetermined: {r} of {d} dimensions are determined, and the rest looks random by construction"
    if d < LEAST_HAAR_DIMENSION and (p is None or p >= LEVEL):
        return f"with d = {d} the tests have too little power to let it pass; it takes {LEAST_HAAR_DIMENSION}"
    return None


def _secondary(sites: Sequence[Site]) -> dict[str, list[str]]:
    """Statistics outside the primary family that depart from Haar, site by site, after Benjamini–Hochberg."""
    tests = {}
    for site in sites:
        if site.haar.is_empty():
            continue
        rows = site.haar.filter(pl.col("metric").eq("p_value") & pl.col("statistic").ne("registered"))
        for row in rows.sort("law").iter_rows(named=True):  # `refit` replaces `exact`
            tests[site.name, row["statistic"]] = float(row["value"])
    adjusted = benjamini_hochberg(tests)
    found: dict[str, list[str]] = {site.name: [] for site in sites}
    for (name, statistic), p in adjusted.items():
        if p < LEVEL:
            found[name].append(f"{statistic} (p = {p:.2g})")
    return found


def _told(measured: Estimate, threshold: float) -> str:
    """The value with its interval, and on which side of the threshold every single pair lies, if they agree."""
    if measured.low is None or measured.high is None:
        return f"{_number(measured.value)}, without an interval"
    interval = f"[{_number(measured.low)}, {_number(measured.high)}]"
    agreed = measured.unanimous(threshold)
    if agreed is None:
        return f"{_number(measured.value)} {interval}"
    side = "above" if agreed else "not above"
    return f"{_number(measured.value)} {interval}, {side} {threshold} in every pair"


def _number(value: float) -> str:
    """Four digits, without a minus sign before zeros."""
    return f"{value:.4f}".replace("-0.0000", "0.0000").replace("-", "−")
