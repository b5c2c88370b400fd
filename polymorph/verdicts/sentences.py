"""Findings as sentences. Nothing reads them back: who needs a number or a word takes it from the fields."""

from functools import singledispatch

from polymorph.alignment.multiplicity import SIGNIFICANCE
from polymorph.verdicts.bounds import BEYOND_AFFINE, GAP, LEAST_HAAR_DIMENSION
from polymorph.verdicts.findings import Finding, Haar, Isometry, Measured, Pairing, Statistic, Verdict

_GAPS: dict[Statistic, str] = {
    "similarity_gap": "gap of affine over similarity",
    "scale_gap": "gap of similarity over orthogonal",
    "orthogonality_gap": "gap of affine over orthogonal",
}

DECIDED = (
    "A verdict is the first of these that holds: unrelated, where the pairing test is not rejected "
    f"(p ≥ {SIGNIFICANCE}); undetermined, where the data determine fewer dimensions of R than there are; "
    f"related, beyond affine, where the affine map stays more than {BEYOND_AFFINE} of R² below the ceiling; affine, "
    f"where it gains more than {GAP} over a similarity; similarity, where that gains more than {GAP} over an "
    "orthogonal map; else "
    "rotation, or orthogonal where a pair has det R = −1. A bound counts as passed, or not, where every pair agrees "
    "with its whole interval or the interval of the mean over seeds does, and otherwise the verdict is "
    "undetermined; p-values of the primary family (pairing and the registered Haar tests of every site) are "
    "adjusted with Holm, all others with Benjamini–Hochberg"
)
"""The rule of verdicts, without a full stop."""


@singledispatch
def statement(finding: Finding, site: str) -> str:
    """What is claimed, as one sentence, or for a verdict two; a kind of finding registers its own."""
    raise TypeError(f"no sentence is known for {type(finding).__name__}")


@singledispatch
def reason(finding: Finding) -> str:
    """Why, without a capital and a full stop; a kind of finding registers its own."""
    raise TypeError(f"no sentence is known for {type(finding).__name__}")


def around_the_word(verdict: Verdict, site: str) -> tuple[str, str]:
    """The statement of a verdict before its word and after it."""
    why = reason(verdict)
    return f"{site}: ", f". {why[0].upper()}{why[1:]}."


@statement.register
def _(finding: Verdict, site: str) -> str:
    before, after = around_the_word(finding, site)
    return f"{before}{finding.word}{after}"


@statement.register
def _(finding: Pairing, site: str) -> str:
    return f"{site}: the members' activations are related beyond what position explains"


@statement.register
def _(finding: Isometry, site: str) -> str:
    return f"{site}: the members differ by an isometry"


@statement.register
def _(finding: Haar, site: str) -> str:
    return f"{site}: the rotations between members are like uniformly random ones"


@reason.register
def _(finding: Verdict) -> str:
    decided = finding.decided_by
    if finding.reason_code == "partly_determined":
        r, d = finding.determined or (0, 0)
        return f"R is undetermined: the data determine {r} of {d} dimensions; {_on_those(finding)}"
    if decided is None:
        return "the ladder of maps was not measured here"
    if finding.reason_code == "pairing_not_rejected":
        p = _p_value(finding)
        return f"permuting documents reaches the observed relation: {p} after Holm over {finding.tests} tests"
    if finding.reason_code in ("nothing_freer_gains", "reflected"):
        return _nothing_gains(finding)
    told = f"{_what(finding, decided.statistic)}: {_told(decided)}"
    if finding.reason_code == "not_settled":
        return f"{told}, which does not settle whether it is above {decided.bound}"
    return told if decided.in_every_pair is not None else f"{told}, above {decided.bound}"


def _on_those(finding: Verdict) -> str:
    """What holds on the determined dimensions."""
    if finding.on_support is not None:
        return f"on those: {finding.on_support.word}, because {reason(finding.on_support)}"
    if not finding.support_measured:
        return "the study of the support, which was not made here, tells what holds on those"
    return "nothing can be said of it"


def _nothing_gains(finding: Verdict) -> str:
    gap = finding.orthogonality_gap
    told = f"no freer map gains more than {GAP}: {_GAPS['orthogonality_gap']} {_told(gap) if gap else ''}"
    reflected, pairs = finding.reflections
    return f"{told}; det R = −1 in {reflected} of {pairs} pairs" if reflected else told


def _what(finding: Verdict, statistic: Statistic) -> str:
    if statistic != "below_ceiling":
        return _GAPS[statistic]
    measured = finding.ceiling is not None
    origin = (
        "that of one member at neighbouring steps" if measured else "1, no member being read at two steps"
    )
    return f"R² of affine below the ceiling ({origin})"


@reason.register
def _(finding: Pairing) -> str:
    return f"{_p_value(finding)} after Holm over the primary family of {finding.tests} tests"


@reason.register
def _(finding: Isometry) -> str:
    assert finding.decided_by is not None
    return f"{_GAPS['orthogonality_gap']}: {_told(finding.decided_by)}, held against {GAP}"


@reason.register
def _(finding: Haar) -> str:
    r, d = finding.determined
    if finding.refusal == "not_related":
        return "the members are not shown to be related: what is fitted is noise, which looks random"
    if finding.refusal == "partly_determined":
        return f"R is undetermined: {r} of {d} dimensions are determined, and the rest looks random by construction"
    if finding.refusal == "little_power":
        return f"with d = {d} the tests have too little power to let it pass; it takes {LEAST_HAAR_DIMENSION}"
    if finding.refusal == "not_tested":
        return "the registered tests were not made"
    told = (
        f"registered tests: {_p_value(finding)} after Holm over the primary family of {finding.tests} tests"
    )
    others = ", ".join(f"{statistic} (p = {p:.2g})" for statistic, p in finding.discovered)
    return f"{told}; of the others, after Benjamini–Hochberg: {others}" if others else told


def _p_value(finding: Finding) -> str:
    assert finding.decided_by is not None
    return f"p = {finding.decided_by.value:.3g}"


def _told(measured: Measured) -> str:
    """The value with its interval, and on which side of the bound every single pair lies, if they agree."""
    assert measured.value is not None
    value = _number(measured.value)
    if measured.low is None or measured.high is None:
        return f"{value}, without an interval"
    interval = f"[{_number(measured.low)}, {_number(measured.high)}]"
    if measured.in_every_pair is None:
        return f"{value} {interval}"
    side = "above" if measured.in_every_pair else "not above"
    return f"{value} {interval}, {side} {measured.bound} in every pair"


def _number(value: float) -> str:
    """Four digits, without a minus sign before zeros."""
    return f"{value:.4f}".replace("-0.0000", "0.0000").replace("-", "−")
