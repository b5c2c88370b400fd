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

from dataclasses import replace

from polymorph.alignment.multiplicity import SIGNIFICANCE
from polymorph.evidence.rows import ON_SUPPORT
from polymorph.verdicts.bounds import BEYOND_AFFINE, GAP
from polymorph.verdicts.estimate import Estimate
from polymorph.verdicts.findings import Measured, Statistic, Verdict
from polymorph.verdicts.site import WHOLE, Site


def verdict_of(site: Site, pairing: float | None, tests: int) -> Verdict:
    """The verdict of a site; `pairing` is the adjusted p-value of its test, None where that was not made."""
    determined, on_whole = site.dimensions, (site.r2(name) for name in ("identity", "rotation", "affine"))
    return replace(
        _decided(site, pairing),
        tests=tests,
        determined=determined,
        share_of_variance=1.0 if determined is not None and determined[0] == determined[1] else None,
        support_measured=not site.support.is_empty(),
        r2={
            name: found.value
            for name, found in zip(("identity", "rotation", "affine"), on_whole, strict=True)
            if found is not None
        },
    )


def _decided(site: Site, pairing: float | None) -> Verdict:
    """Steps 1 and 2, then the others."""
    if pairing is not None and pairing >= SIGNIFICANCE:
        p = Measured(statistic="p_value", value=pairing, bound=SIGNIFICANCE)
        return Verdict(
            word="unrelated", reason_code="pairing_not_rejected", decided_by=p, ceiling=site.ceiling
        )
    r, d = site.dimensions or (0, 0)
    if r < d:
        return Verdict(
            word="undetermined",
            reason_code="partly_determined",
            decided_by=Measured(statistic="determined_dimension", value=float(r), bound=float(d)),
            on_support=_family(site, ON_SUPPORT) if r > 0 else None,
            ceiling=site.ceiling,
        )
    found = _family(site, WHOLE)
    return found or Verdict(word="undetermined", reason_code="not_measured", ceiling=site.ceiling)


def _family(site: Site, basis: str) -> Verdict | None:
    """Steps 3 to 6, over all of R or on its support; None where the maps were not measured there."""
    affine = site.r2("affine") if basis == WHOLE else site.gap("r2_affine", basis)
    if affine is None:
        return None
    ceiling = site.ceiling
    steps: tuple[tuple[str, Statistic, Estimate | None, float], ...] = (
        (
            "related, beyond affine",
            "below_ceiling",
            affine.below(1.0 if ceiling is None else ceiling),
            BEYOND_AFFINE,
        ),
        ("affine", "similarity_gap", site.gap("similarity_gap", basis), GAP),
        ("similarity", "scale_gap", site.gap("scale_gap", basis), GAP),
    )
    last = None
    for word, statistic, found, bound in steps:
        if found is None:
            return None
        decided, last = found.above(bound), Measured.of(statistic, found, bound)
        if decided is None:
            return Verdict(word="undetermined", reason_code="not_settled", decided_by=last, ceiling=ceiling)
        if decided:
            return Verdict(word=word, reason_code="above_bound", decided_by=last, ceiling=ceiling)
    reflections = site.reflections if basis == WHOLE else (0, 0)
    gap = site.gap("orthogonality_gap", basis)
    return Verdict(
        word="orthogonal" if reflections[0] else "rotation",
        reason_code="reflected" if reflections[0] else "nothing_freer_gains",
        decided_by=last,
        ceiling=ceiling,
        orthogonality_gap=None if gap is None else Measured.of("orthogonality_gap", gap, GAP),
        reflections=reflections,
    )
