"""A task of somebody else: sequences that count up in steps of their own."""

from dataclasses import asdict, dataclass
from typing import Any

from polymorph.tasks.kind import TaskKind


@dataclass
class CountingConfig:
    """Counting modulo `vocab_size`."""

    name: str = "counting"
    """Chosen as `task=counting`."""
    vocab_size: int = 11
    """Tokens, each a number."""
    context: int = 12
    """Tokens of a sequence."""


def _opened(config: CountingConfig) -> Any:
    from polymorph.tasks.counting.task import Counting

    return Counting(config)


TASK = TaskKind(
    name="counting",
    config=CountingConfig,
    heads=("tok",),
    prepare=lambda config, folder, say, progress: _opened(config),
    open=lambda stated, folder: _opened(CountingConfig(**stated)),
    identity=lambda config, folder: asdict(config),
)
