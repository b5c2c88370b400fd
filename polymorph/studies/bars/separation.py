"""How well a bar tells members from decoys: the area under the curve."""

from collections.abc import Iterator, Sequence

import torch

from polymorph.alignment.jackknife import jackknife_interval
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import Row
from polymorph.studies.bars.divergence import MEAN, MIXTURE
from polymorph.studies.components.rows import (
    PAPER,
)

STUDY = "bars"


ALL = "all"
"""In the column `decoy`: all kinds together."""


SMALL = frozenset({"B", "P"})
"""Bars that are passed below their bound; the others are above it."""


def auc(members: Sequence[float], decoys: Sequence[float], small: bool) -> float:
    """The chance that a member drawn at random is on the better side of a decoy, a tie counting half."""
    better = [((d > m) if small else (m > d)) + 0.5 * (m == d) for m in members for d in decoys]
    return sum(better) / len(better)


def separations(evidence: Evidence, rows: Sequence[Row]) -> Iterator[Row]:
    """`auc` of every bar and scope, against all decoys and each kind; the interval leaves out one seed at a time."""
    told = [row for row in rows if _is_bar(row)]
    for bar, scope in dict.fromkeys((row.extra["bar"], row.extra["scope"]) for row in told):
        own = [row for row in told if (row.extra["bar"], row.extra["scope"]) == (bar, scope)]
        members = [row for row in own if "decoy" not in row.extra]
        decoys = [row for row in own if "decoy" in row.extra]
        for name in (ALL, *dict.fromkeys(row.extra["decoy"] for row in decoys)):
            some = [row for row in decoys if name in (ALL, row.extra["decoy"])]
            if not members or not some:
                continue
            value, low, high = _auc(members, some, bar in SMALL)
            about = {"extra": {"bar": bar, "scope": scope, "decoy": name}, "low": low, "high": high}
            counts = {"n_documents": own[0].n_documents, "n_tokens": own[0].n_tokens}
            yield evidence.row(STUDY, None, "eval", "auc", value, **about, **counts)


def _is_bar(row: Row) -> bool:
    """The one number of a bar: of all heads and distributions, in the convention that has the bound."""
    if row.extra["bar"] == "B":
        return row.convention is None and (row.extra["head"], row.extra["distribution"]) == (MEAN, MIXTURE)
    return (row.convention == PAPER) == (row.extra["bar"] == "P")


def _auc(
    members: Sequence[Row], decoys: Sequence[Row], small: bool
) -> tuple[float, float | None, float | None]:
    def of(left_out: int) -> float | None:
        both = [
            [row.value for row in rows if left_out not in (row.source, row.target)]
            for rows in (members, decoys)
        ]
        return auc(both[0], both[1], small) if all(both) else None

    value = of(-1)
    assert value is not None
    seeds = sorted({seed for row in members for seed in (row.source, row.target) if seed is not None})
    rest = [found for seed in seeds if (found := of(seed)) is not None]
    if len(seeds) < 3 or len(rest) < len(seeds):
        return value, None, None
    low, high = jackknife_interval(torch.tensor(value), torch.tensor(rest))
    return value, max(0.0, float(low)), min(1.0, float(high))
