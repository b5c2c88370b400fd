"""How a planted cohort is asked for."""

from dataclasses import dataclass


@dataclass
class PlantedConfig:
    """How a planted cohort is made; what a kind does not use has no effect on it."""

    d: int = 64
    """Width of the activations."""
    members: int = 4
    """How many."""
    rank: int = 8
    """`rotated_low_rank`, `same_basis_low_rank`: dimensions of the latent signal."""
    noise: float = 0.01
    """Standard deviation of each member's own noise, relative to the root mean square over its dimensions."""
    condition: float = 3.0
    """`affine`: largest by smallest singular value of the map between two members, about."""
    scale: float = 1.5
    """`similarity`: size of each member relative to the one before."""
    pinned: int = 8
    """`pinned`: dimensions, in no special direction, that no member turns."""
    axes: int = 8
    """`privileged`: coordinate axes that members only permute and flip."""
    share: float = 0.6
    """`partial`: share of the variance that is a rotated copy; `bent`: that is linear in the common signal."""
    position: float = 0.0
    """Share of the variance that the position in the document explains, the same in all members."""
    documents: int = 1024
    """In the fit split, and as many others in the eval split."""
    tokens: int = 32
    """A document."""
    seed: int = 0
    """Of all that is drawn."""

    def __post_init__(self) -> None:
        if self.d < 2 or self.members < 1 or self.documents < 1 or self.tokens < 1:
            raise ValueError(
                f"planted.d={self.d}, members={self.members}, documents={self.documents}, "
                f"tokens={self.tokens}: d from 2, the others from 1"
            )
        for key in ("rank", "pinned", "axes"):
            if getattr(self, key) < 1:
                raise ValueError(f"planted.{key}={getattr(self, key)}: at least 1")
        for key, least, most in (("noise", 0, 1), ("share", 0, 1), ("position", 0, 0.99)):
            if not least <= getattr(self, key) <= most:
                raise ValueError(f"planted.{key}={getattr(self, key)}: from {least} to {most}")
        if self.condition < 1 or self.scale <= 0:
            raise ValueError(f"planted.condition={self.condition}, scale={self.scale}: from 1, above 0")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"planted.seed={self.seed}: from 0 to 2^32 - 1")
