"""The options of the probe."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class ProbeConfig:
    """The inputs on which members are compared."""

    fit: int = 1024
    """Documents on which maps are fitted."""
    eval: int = 1024
    """Other documents, on which they are scored."""
    seed: int = 0
    """Of the inputs that are drawn for it."""

    def __post_init__(self) -> None:
        for key in ("fit", "eval"):
            if getattr(self, key) < 2:
                raise ValueError(f"probe.{key}={getattr(self, key)}: at least 2 documents")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"probe.seed={self.seed}: from 0 to 2^32 - 1")

    def identity(self) -> dict[str, Any]:
        """What makes two probes the same probe."""
        return {**asdict(self), "distribution": "train"}
