"""Two members at their steps, as the rows name them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polymorph.evidence.rows import Role

End = tuple[int, int]
"""A member at a checkpoint: (seed, step)."""
SCHEMES = ("all", "anchor", "chain")


@dataclass(frozen=True)
class PairLabel:
    """What a pair of members is: two seeds at their steps.

    A `ceiling` is one seed at an earlier and a later step, and is reported in that direction alone.
    """

    source: int
    target: int
    source_step: int
    target_step: int
    role: "Role"

    def __post_init__(self) -> None:
        same = self.source == self.target
        if same != (self.role == "ceiling") or (same and self.source_step >= self.target_step):
            raise ValueError(f"a pair is two seeds, or, as a ceiling, one seed at two rising steps: {self}")

    @classmethod
    def between(cls, source: int, target: int, source_step: int, target_step: int) -> "PairLabel":
        """The label with the role that follows from the seeds."""
        return cls(source, target, source_step, target_step, "ceiling" if source == target else "estimate")

    @property
    def ends(self) -> tuple[End, End]:
        """Source and target."""
        return (self.source, self.source_step), (self.target, self.target_step)

    def columns(self, role: "Role | None" = None) -> dict[str, Any]:
        """The columns of a row about this pair; `role` replaces its own."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {"role": role or self.role, "n_seeds": 1 if self.source == self.target else 2}

    def reverse(self) -> "PairLabel":
        """The same pair, the other way round."""
        return PairLabel(self.target, self.source, self.target_step, self.source_step, self.role)


def pairs_of(ends: Sequence[End], scheme: str = "all") -> list[PairLabel]:
    """Pairs of different seeds: every one, each with the first (`anchor`), or each with the next (`chain`)."""
    found = [(i, j) for i in range(len(ends)) for j in range(i + 1, len(ends))]
    if scheme == "anchor":
        found = [(i, j) for i, j in found if i == 0]
    elif scheme == "chain":
        found = [(i, j) for i, j in found if j == i + 1]
    elif scheme != "all":
        raise ValueError(f"pairs={scheme!r}: one of {', '.join(SCHEMES)}")
    return [PairLabel.between(a, b, at, bt) for (a, at), (b, bt) in ((ends[i], ends[j]) for i, j in found)]
