"""What a study found, in words: the sentences, the small table and the limits that stand at the top of its section."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Of one study of one cohort; everything in it is plain text."""

    text: str
    """One to three plain sentences with numbers."""
    columns: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()
    """A small table: as many cells as `columns`, of which the first heads its row; may be empty."""
    bears: tuple[str, ...] = ()
    """Sentences: what the numbers can bear, and what they cannot."""
