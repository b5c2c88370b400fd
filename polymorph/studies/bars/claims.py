"""Whether a cohort passes the paper's four bars, by bounds that stand here before anything is run.

The bounds are the paper's own (section 2, "The four operational bars"): KL below 1e-4, largest squared difference of a
weight below 1e-3, correlations above 0.99. A bar is passed, or not, where every member or directed pair is with its
whole interval, or else where the interval of their mean is; how many decoys pass the same bound stands beside it,
because a bar that they pass says nothing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import polars as pl

from polymorph.alignment.multiplicity import SIGNIFICANCE
from polymorph.studies.bars.divergence import ACROSS, MEAN, MIXTURE, WITHIN
from polymorph.studies.bars.rows import PAPER
from polymorph.studies.bars.separation import ALL
from polymorph.studies.components.members import INTEGRATED
from polymorph.studies.components.rankings import PARTS
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.estimate import Estimate, estimate
from polymorph.verdicts.findings import Finding, Kind, Measured
from polymorph.verdicts.sentences import reason, statement

EVERYWHERE = "all sites"
"""In place of a site: a bar is about whole members."""


@dataclass(frozen=True)
class Bound:
    """What a bar's number must be below, or else above."""

    value: float
    below: bool
    says: str

    @property
    def least(self) -> float:
        """What the number can be at least; `most` is what it can be at most."""
        return 0.0 if self.below else -1.0

    @property
    def most(self) -> float:
        return math.inf if self.below else 1.0

    @property
    def side(self) -> str:
        return "below" if self.below else "above"

    def passed(self, value: float) -> bool:
        return value < self.value if self.below else value > self.value


BOUNDS: Mapping[str, Bound] = MappingProxyType(
    {
        "B": Bound(1e-4, True, "the KL divergence of its answers, in nats a position and head"),
        "P": Bound(1e-3, True, "the largest mean squared difference of a weight after alignment"),
        "C": Bound(0.99, False, "Pearson's r of integrated gradients with the effects of single components"),
        "Pr": Bound(
            0.99, False, "Pearson's r of what they add up to with the effects of components together"
        ),
    }
)
WHO = {WITHIN: "every member by itself", ACROSS: "members held against one another"}


@dataclass(frozen=True)
class RestsOn:
    """What the correlation across members comes to without one component, and beside other assignments of heads."""

    least: float | None
    """r of the pair that falls furthest; None where nothing was left out."""
    reached: int
    """Pairs in which heads in another order do as well."""
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Bar(Finding):
    """A bar of the paper, for members by themselves or against one another; counts are (passing, all)."""

    kind: ClassVar[Kind] = "bar"
    bar: str
    scope: str
    members: tuple[int, int]
    decoys: tuple[int, int] | None
    """None where there are none."""
    separation: float | None
    """The chance that the bar puts a member before a decoy; None where it was not measured."""
    rests_on: RestsOn | None


def bar_values(rows: pl.DataFrame, bar: str, scope: str) -> pl.DataFrame:
    """The one number of a bar for every member or directed pair and every decoy; P has no interval but its value."""
    own = rows.filter(pl.col("bar") == bar, pl.col("scope") == scope, pl.col("metric") != "auc")
    if bar == "B":
        own = own.filter(pl.col("head") == MEAN, pl.col("distribution") == MIXTURE)
    convention = pl.col("convention").eq(PAPER) if bar == "P" else pl.col("convention").is_null()
    return own.filter(convention).with_columns(
        source=pl.coalesce("source", "target"),
        low=pl.coalesce("low", "value"),
        high=pl.coalesce("high", "value"),
    )


def study_claims(tables: Mapping[str, pl.DataFrame]) -> Iterator[Claim]:
    """One for every bar and scope of which there are numbers; none without the study."""
    rows = tables.get("bars")
    if rows is None or rows.is_empty():
        return
    for bar, bound in BOUNDS.items():
        for scope in (WITHIN, ACROSS):
            values = bar_values(rows, bar, scope)
            if (found := estimate(values.filter(pl.col("decoy").is_null()))) is not None:
                separation = rows.filter(bar=bar, scope=scope, metric="auc", decoy=ALL)["value"]
                yield _claim(bar, scope, bound, found, values, separation, tables.get("components"))


def _claim(
    bar: str,
    scope: str,
    bound: Bound,
    found: Estimate,
    values: pl.DataFrame,
    separation: pl.Series,
    components: pl.DataFrame | None,
) -> Claim:
    above = found.above(bound.value)
    word = "undetermined" if above is None else "passed" if above != bound.below else "not passed"
    measured = Measured.of("bar", found, bound.value)
    low, high = measured.low, measured.high
    decoys = values.filter(pl.col("decoy").is_not_null())
    finding = Bar(
        word=word,
        decided_by=replace(
            measured,
            low=None if low is None else max(low, bound.least),
            high=None if high is None else min(high, bound.most),
        ),
        bar=bar,
        scope=scope,
        members=_passing(values.filter(pl.col("decoy").is_null()), bound),
        decoys=None if decoys.is_empty() else _passing(decoys, bound),
        separation=float(separation[0]) if len(separation) else None,
        rests_on=_rests_on(components) if bar == "C" and scope == ACROSS and components is not None else None,
    )
    return Claim(site=EVERYWHERE, subject=f"{bar}:{scope}", finding=finding)


def _passing(values: pl.DataFrame, bound: Bound) -> tuple[int, int]:
    """How many pass, and of how many."""
    return sum(map(bound.passed, values["value"])), values.height


def _rests_on(components: pl.DataFrame) -> RestsOn:
    own = components.filter(kind=PARTS, attribution=INTEGRATED, assignment="name", role="estimate").filter(
        pl.col("convention").is_null()
    )
    left_out = own.filter(metric="effect_correlation", statistic="leave_one_out")["value"].to_list()
    p_values = own.filter(metric="p_value", statistic="pearson")["value"]
    return RestsOn(
        least=min(left_out, default=None), reached=int((p_values >= SIGNIFICANCE).sum()), pairs=len(p_values)
    )


@statement.register
def _(finding: Bar, site: str) -> str:
    bound = BOUNDS[finding.bar]
    return f"Bar {finding.bar}, {WHO[finding.scope]}: {bound.says} is {bound.side} {bound.value:g}"


@reason.register
def _(finding: Bar) -> str:
    bound, within = BOUNDS[finding.bar], finding.scope == WITHIN
    assert finding.decided_by is not None
    told = f"{finding.decided_by.value:.4g} in the mean, held to {bound.side} {bound.value:g}: "
    told += f"{_share(finding.members)} {'members' if within else 'pairs'} pass"
    if finding.decoys is not None:
        told += f", and {_share(finding.decoys)} decoys"
    if finding.separation is not None:
        told += f"; the chance that it puts a member before a decoy is {finding.separation:.2f}"
    if finding.bar == "P" and within:
        told += (
            ", each against a copy under a random symmetry: that the search works, and nothing of the member"
        )
    return told + "".join(_rest(finding.rests_on))


def _share(counts: tuple[int, int]) -> str:
    passing, of = counts
    return f"{passing} of {of}"


def _rest(rests_on: RestsOn | None) -> Iterator[str]:
    if rests_on is None:
        return
    if rests_on.least is not None:
        yield f"; without one component r falls to {rests_on.least:.2f} in a pair"
    if rests_on.pairs:
        told = f"; in {rests_on.reached} of {rests_on.pairs} pairs heads in another order do as well"
        yield f"{told} (p ≥ {SIGNIFICANCE})"
