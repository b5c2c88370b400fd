"""What watches the training, as a request states it."""

from dataclasses import dataclass

from polymorph.checks import one_of

MODES = ("none", "online", "final")


@dataclass
class CrossSeedConfig:
    """The comparison at every checkpoint."""

    enabled: bool = True
    """Compare at every checkpoint; `analyze.py` makes what was not compared."""
    sae: str = "none"
    """`online`: SAEs are kept trained at every checkpoint; `final`: trained once, at the end; `none`."""

    steering: str = "none"
    """`online`: steering vectors are carried between members, and their regimes told, at every checkpoint; `final`:
    at the end alone; `none`. Some seconds a pair and checkpoint."""

    def __post_init__(self) -> None:
        one_of("callbacks.cross_seed.sae", self.sae, MODES)
        one_of("callbacks.cross_seed.steering", self.steering, MODES)
