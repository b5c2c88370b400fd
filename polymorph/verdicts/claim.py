"""One statement with the numbers that decide it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from polymorph.verdicts.error_rate import ErrorRate


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`id` is unique in an analysis: `verdict:<site>`, `pairing:<site>`, `isometry:<site>`, `haar:<site>`.

    `value`, `low` and `high` are of the statistic that decided, `threshold` what it was held against; they are
    None where nothing could be measured, and `reason` says why. Verdicts alone have an `error_rate`.
    """

    id: str
    site: str
    statement: str
    verdict: str
    reason: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    error_rate: ErrorRate | None = None


def write_claims(claims: Sequence[Claim]) -> bytes:
    """The claims as JSON, in their order."""
    return json.dumps([asdict(claim) for claim in claims], ensure_ascii=False, indent=1).encode() + b"\n"
