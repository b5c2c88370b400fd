"""One statement with the numbers that decide it, and all of an analysis as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from polymorph.verdicts import sentences
from polymorph.verdicts.error_rate import ErrorRate
from polymorph.verdicts.findings import Finding, Kind, Measured, Verdict


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A finding at a site; everything but sentences is a field, and sentences are made from those.

    Verdicts alone have an `error_rate`. `subject` stands in the id where the claim is not about a site.
    """

    site: str
    finding: Finding
    error_rate: ErrorRate | None = None
    subject: str | None = None

    @property
    def kind(self) -> Kind:
        return self.finding.kind

    @property
    def id(self) -> str:
        """Unique in an analysis: `verdict:<site>`, `pairing:<site>`, `isometry:<site>`, `haar:<site>`, `bar:…`."""
        return f"{self.kind}:{self.site if self.subject is None else self.subject}"

    @property
    def verdict(self) -> str:
        return self.finding.word

    @property
    def statement(self) -> str:
        return sentences.statement(self.finding, self.site)

    @property
    def reason(self) -> str:
        return sentences.reason(self.finding)

    @property
    def value(self) -> float | None:
        """Of the statistic that decided; None where nothing was measured, and `reason` says why."""
        return self._of_decisive("value")

    @property
    def low(self) -> float | None:
        return self._of_decisive("low")

    @property
    def high(self) -> float | None:
        return self._of_decisive("high")

    @property
    def threshold(self) -> float | None:
        """What the value was held against."""
        return self._of_decisive("bound")

    def _of_decisive(self, name: str) -> float | None:
        decided: float | None = getattr(self.finding.decided_by, name, None)
        return decided


def write_claims(claims: Sequence[Claim]) -> bytes:
    """The claims as JSON, in their order."""
    return json.dumps([_entry(claim) for claim in claims], ensure_ascii=False, indent=1).encode() + b"\n"


_TOLD = ("id", "site", "statement", "verdict", "reason", "value", "low", "high", "threshold")


def _entry(claim: Claim) -> dict[str, Any]:
    """Claim by name and sentence first, then the fields that sentences are made from; null where not measured."""
    rate = None if claim.error_rate is None else asdict(claim.error_rate)
    entry = {name: getattr(claim, name) for name in _TOLD}
    return entry | {"error_rate": rate, "kind": claim.kind} | _fields(claim.finding)


def _fields(finding: Finding) -> dict[str, Any]:
    """Those of a site's verdict; of other kinds only what decided."""
    if not isinstance(finding, Verdict):
        return {"decided_by": _decisive(finding)}
    r, d = finding.determined or (None, None)
    return {
        "decided_by": _decisive(finding),
        "reason_code": finding.reason_code,
        "relation_on_support": finding.relation_on_support,
        "decided_on_support_by": None if finding.on_support is None else _decisive(finding.on_support),
        "determined_dimension": r,
        "dimension": d,
        "share_of_variance": finding.share_of_variance,
        **{f"r2_{name}": finding.r2.get(name) for name in ("identity", "rotation", "affine")},
        "r2_ceiling": finding.ceiling,
    }


def _decisive(finding: Finding) -> dict[str, Any] | None:
    decided: Measured | None = finding.decided_by
    return None if decided is None else asdict(decided)
