"""SAEs of members as studies meet them: which there are, and one of them with what is recorded about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from sae_lens import SAE

Variant = Literal["distinct", "shared", "again", "unrelated", "online", "attached"]
"""How the initialisation and the data of an SAE relate to those of the others of its family:

`distinct`   an initialisation seed of its own, on its member's activations: what is compared by default
`shared`     the same initialisation seed for all members
`again`      as `distinct`, with another seed: a second SAE on the same member, for the ceiling
`unrelated`  the seed of `shared`, on Gaussian noise with its member's mean and covariance: what a shared
             initialisation alone explains
`online`     kept trained from checkpoint to checkpoint
`attached`   made elsewhere
"""


@dataclass(frozen=True)
class TrainedSAE:
    """One SAE in the form that is scored (SAELens' inference form), float32, evaluation mode."""

    sae: "SAE[Any]"
    family: str
    """What its training was called, e.g. `standard_x8`; SAEs of one family differ in seed and data alone."""
    variant: Variant = "distinct"
    seed: int | None = None
    """Of its initialisation; None where that is not known."""
    digest: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Dictionaries(Protocol):
    """The SAEs that there are for some members."""

    def families(self) -> list[str]:
        """Every family of which at least one SAE is there, sorted."""
        ...

    def read(
        self, seed: int, step: int, site: str, family: str, variant: Variant = "distinct"
    ) -> TrainedSAE | None:
        """The SAE of a member at a checkpoint; None if there is none."""
        ...

    def steps(self, seed: int, site: str, family: str, variant: Variant = "distinct") -> list[int]:
        """The checkpoints of a member for which there is one, in order."""
        ...


Key = tuple[int, int, str, str, str]


@dataclass(frozen=True)
class GivenDictionaries:
    """SAEs in memory, by (seed, step, site, family, variant)."""

    saes: Mapping[Key, TrainedSAE] = field(default_factory=dict)

    def families(self) -> list[str]:
        return sorted({family for _, _, _, family, _ in self.saes})

    def read(
        self, seed: int, step: int, site: str, family: str, variant: Variant = "distinct"
    ) -> TrainedSAE | None:
        return self.saes.get((seed, step, site, family, variant))

    def steps(self, seed: int, site: str, family: str, variant: Variant = "distinct") -> list[int]:
        wanted = (seed, site, family, variant)
        return sorted(step for s, step, *rest in self.saes if (s, *rest) == wanted)
