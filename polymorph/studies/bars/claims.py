"""Whether a cohort passes the paper's four bars, by bounds that stand here before anything is run.

The bounds are the paper's own (section 2, "The four operational bars"): KL below 1e-4, largest squared difference of a
weight below 1e-3, correlations above 0.99. A bar is passed, or not, where every member or directed pair is with its
whole interval, or else where the interval of their mean is; how many decoys pass the same bound stands beside it,
because a bar that they pass says nothing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from polymorph.alignment.multiplicity import LEVEL
from polymorph.studies.bars.divergence import ACROSS, MEAN, MIXTURE, WITHIN
from polymorph.studies.bars.rows import PAPER
from polymorph.studies.bars.separation import ALL
from polymorph.studies.components.members import INTEGRATED
from polymorph.studies.components.rankings import PARTS
from polymorph.verdicts.claim import Claim
from polymorph.verdicts.estimate import Estimate, estimate

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


def _rests_on(components: pl.DataFrame | None) -> str:
    """What the correlation across members comes to without one component, and beside other assignments of heads."""
    if components is None:
        return ""
    own = components.filter(kind=PARTS, attribution=INTEGRATED, assignment="name", role="estimate").filter(
        pl.col("convention").is_null()
    )
    left_out = own.filter(metric="effect_correlation", statistic="leave_one_out")["value"].to_list()
    p_values = own.filter(metric="p_value", statistic="pearson")["value"]
    found = f"; without one component r falls to {min(left_out):.2f} in a pair" if left_out else ""
    if len(p_values):
        reached = int((p_values >= LEVEL).sum())
        found += f"; in {reached} of {len(p_values)} pairs heads in another order do as well (p ≥ {LEVEL})"
    return found


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
    verdict = "undetermined" if above is None else "passed" if above != bound.below else "not passed"
    told = {name: _share(values.filter(test), bound) for name, test in _GROUPS.items()}
    side = "below" if bound.below else "above"
    reason = (
        f"{found.value:.4g} in the mean, held to {side} {bound.value:g}: {told['members']} "
        f"{'members' if scope == WITHIN else 'pairs'} pass"
    )
    if values["decoy"].count():
        reason += f", and {told['decoys']} decoys"
    if len(separation):
        reason += f"; the chance that it puts a member before a decoy is {separation[0]:.2f}"
    if bar == "P" and scope == WITHIN:
        reason += (
            ", each against a copy under a random symmetry: that the search works, and nothing of the member"
        )
    if bar == "C" and scope == ACROSS:
        reason += _rests_on(components)
    return Claim(
        id=f"bar:{bar}:{scope}",
        site=EVERYWHERE,
        statement=f"Bar {bar}, {WHO[scope]}: {bound.says} is {side} {bound.value:g}",
        verdict=verdict,
        reason=reason,
        value=found.value,
        low=None if found.low is None else max(found.low, bound.least),
        high=None if found.high is None else min(found.high, bound.most),
        threshold=bound.value,
    )


_GROUPS = {"members": pl.col("decoy").is_null(), "decoys": pl.col("decoy").is_not_null()}


def _share(values: pl.DataFrame, bound: Bound) -> str:
    return f"{sum(map(bound.passed, values['value']))} of {values.height}"
