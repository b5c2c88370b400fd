"""What a vector of one member does on another, called by a name; the rule is `regime`.

Every name rests on tests, and every kind of test is corrected (Holm) over all cases that are decided together: the
chance that any of them is rejected wrongly is at most 5 % for each kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from polymorph.alignment.multiplicity import SIGNIFICANCE, holm
from polymorph.steering.documents import p_above, p_beyond

CLEAN = (0.8, 1.25)
"""Transfer efficiencies that count as those of the member's own vector."""
Regime = Literal["clean", "partial", "overdriven", "inverted", "none", "undetermined"]
REGIMES: tuple[Regime, ...] = ("clean", "partial", "overdriven", "inverted", "none", "undetermined")
WORKS: tuple[Regime, ...] = ("clean", "partial")
"""Those in which a vector does on another member what it is meant to, at no greater cost."""


@dataclass(frozen=True)
class Outcome:
    """Of one vector on one member: change of log-odds and KL by document, and changes by random directions."""

    tau: Float[Tensor, " documents"]
    kl: Float[Tensor, " documents"]
    null: Float[Tensor, " draws"]

    @property
    def above(self) -> float:
        """p-value against no effect, or the effect of a random direction, for one above 0; two-sided."""
        return _both(p_above(self.tau), p_beyond(float(self.tau.mean()), self.null))

    @property
    def below(self) -> float:
        """The same for one below 0."""
        return _both(p_above(-self.tau), p_beyond(-float(self.tau.mean()), -self.null))


def _both(over_documents: float, over_directions: float) -> float:
    """Both must be rejected, on either of two sides."""
    return min(1.0, 2 * max(over_documents, over_directions))


@dataclass(frozen=True)
class PValues:
    """p-values of one case, raw or corrected; each is small where its statement holds."""

    own: float
    """The member's own vector raises the target's log-odds."""
    above: float
    """The other's vector raises them."""
    below: float
    """It lowers them."""
    equal: float
    """Its effect is between 0.8 and 1.25 times that of the own."""
    larger: float
    """Its effect is larger than that of the own."""
    wasted: float
    """Its KL from the unsteered output is larger than that of the own."""
    much_wasted: float
    """It is more than 1.25 times as large."""


@dataclass(frozen=True)
class Called:
    """A regime, and the p-value on which it rests: the largest of those rejected, or the one that was not."""

    regime: Regime
    p: float


def p_values(own: Outcome, other: Outcome) -> PValues:
    """Raw p-values of the vector of another member beside the own; documents are paired."""
    low, high = CLEAN
    return PValues(
        own=own.above,
        above=other.above,
        below=other.below,
        equal=max(p_above(other.tau - low * own.tau), p_above(high * own.tau - other.tau)),
        larger=p_above(other.tau - own.tau),
        wasted=p_above(other.kl - own.kl),
        much_wasted=p_above(other.kl - high * own.kl),
    )


def corrected(cases: Sequence[PValues], owners: Sequence[int]) -> list[PValues]:
    """Holm over all cases, for every kind of test; cases with the same owner share the test of its own vector."""
    adjusted: dict[str, list[float]] = {}
    for name in (field.name for field in fields(PValues)):
        values = [getattr(case, name) for case in cases]
        if name == "own":
            once = dict(zip(owners, values, strict=True))
            found = holm(once)
            adjusted[name] = [found[owner] for owner in owners]
        else:
            found = holm(dict(enumerate(values)))
            adjusted[name] = [found[place] for place in range(len(values))]
    return [PValues(**{name: values[i] for name, values in adjusted.items()}) for i in range(len(cases))]


def regime(p: PValues, level: float = SIGNIFICANCE) -> Called:
    """The name of a case from its corrected p-values, in this order.

    *undetermined*: the own vector is not shown to work, so there is nothing to carry over; *inverted*: the other's
    lowers what it should raise; *clean*: it does what the own does, within 0.8 to 1.25, and is not shown to
    cost more than 1.25 times as much KL (the own is told from random directions, and so is its equal); *overdriven*:
    it costs more KL than the own and achieves no more; *none*: it is not told from a random direction; *partial*: all
    else above that.
    """
    if p.own >= level:
        return Called("undetermined", p.own)
    if p.below < level:
        return Called("inverted", max(p.own, p.below))
    if p.equal < level <= p.much_wasted:
        return Called("clean", max(p.own, p.equal))
    if p.wasted < level <= p.larger:
        return Called("overdriven", max(p.own, p.wasted))
    if p.above >= level:
        return Called("none", p.above)
    return Called("partial", max(p.own, p.above))
