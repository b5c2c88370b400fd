"""Where and how strongly members are steered, as it is written in a configuration."""

from dataclasses import dataclass, field

DOSES = (0.5, 1.0, 2.0, 4.0)
"""The paper's."""


@dataclass
class SteeringOptions:
    """Where and how strongly members are steered."""

    site: str | None = None
    """Null is `blocks.1.hook_resid_mid`, the paper's, where there is one, and else the middle of the sites."""
    doses: list[float] = field(default_factory=lambda: list(DOSES))
    """How often a vector is added; what is tested is tested at the one nearest 1."""
