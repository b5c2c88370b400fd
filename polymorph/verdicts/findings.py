"""What the tables say about a claim, as fields: a word, the number that decided it, and what else it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from polymorph.verdicts.estimate import Estimate

Kind = Literal["verdict", "pairing", "isometry", "haar", "bar"]
ReasonCode = Literal[
    "pairing_not_rejected",
    "partly_determined",
    "not_measured",
    "not_settled",
    "above_bound",
    "nothing_freer_gains",
    "reflected",
]
Refusal = Literal["not_related", "partly_determined", "little_power", "not_tested"]
Statistic = Literal[
    "p_value",
    "determined_dimension",
    "below_ceiling",
    "similarity_gap",
    "scale_gap",
    "orthogonality_gap",
    "bar",
]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A statistic, its 95 % interval, and the bound that it was held against.

    `value` is None where it was not measured, `low` and `high` where it has no interval. `in_every_pair` says on
    which side of the bound every single pair lies with its whole interval: above (True), not above (False); None
    where pairs differ.
    """

    statistic: Statistic
    bound: float
    value: float | None = None
    low: float | None = None
    high: float | None = None
    in_every_pair: bool | None = None

    @classmethod
    def of(cls, statistic: Statistic, found: Estimate, bound: float) -> "Measured":
        """An estimate held against a bound."""
        return cls(
            statistic=statistic,
            bound=bound,
            value=found.value,
            low=found.low,
            high=found.high,
            in_every_pair=None if found.low is None else found.unanimous(bound),
        )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What every kind has: its word, and what decided it; None where nothing was measured."""

    kind: ClassVar[Kind]
    word: str
    decided_by: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict(Finding):
    """Which family of maps relates the members at one site.

    `on_support` is the same rule on the r determined dimensions, where they are not all d; `r2` maps *identity*,
    *rotation* and *affine* to the mean over directed pairs, on the whole stream.
    """

    kind: ClassVar[Kind] = "verdict"
    reason_code: ReasonCode
    on_support: "Verdict | None" = None
    support_measured: bool = True
    """Whether the study of the support was made."""
    determined: tuple[int, int] | None = None
    """(r, d), with r the least of all pairs; None where it was not measured."""
    share_of_variance: float | None = None
    """On the determined dimensions; None where it was not measured."""
    r2: Mapping[str, float] = field(default_factory=dict)
    ceiling: float | None = None
    """R² of the affine map of a member to its own next step; None where no member was read at two, and 1 is taken."""
    orthogonality_gap: Measured | None = None
    reflections: tuple[int, int] = (0, 0)
    """Pairs with det R = −1, and pairs."""
    tests: int = 0
    """How many tests the primary family has."""

    @property
    def relation_on_support(self) -> str | None:
        """The word for the determined dimensions; that of the whole where they are all; None where it is not said."""
        if self.on_support is not None:
            return self.on_support.word
        r, d = self.determined or (0, 1)
        return self.word if r == d else None


@dataclass(frozen=True, kw_only=True)
class Pairing(Finding):
    """Whether members are related, by permutations of documents; `tests` counts the primary family."""

    kind: ClassVar[Kind] = "pairing"
    tests: int


@dataclass(frozen=True, kw_only=True)
class Isometry(Finding):
    """Whether members differ by an isometry: by the gap of affine over orthogonal."""

    kind: ClassVar[Kind] = "isometry"


@dataclass(frozen=True, kw_only=True)
class Haar(Finding):
    """Whether rotations between members are like uniformly random ones, or why that is not judged."""

    kind: ClassVar[Kind] = "haar"
    tests: int
    determined: tuple[int, int]
    """(r, d)."""
    refusal: Refusal | None = None
    discovered: tuple[tuple[str, float], ...] = ()
    """Statistics outside the primary family that depart from Haar, with p adjusted by Benjamini–Hochberg."""
