"""The answer to the question of a study: what a page says of it before anything is looked at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One to three sentences with their numbers, and a small table.

    Names that users gave stand in it as they are: whoever shows it escapes them.
    """

    text: str
    columns: tuple[str, ...]
    """The heading of every column; the first is over the headings of the lines."""
    lines: tuple[tuple[str, ...], ...]
    """Each as long as `columns`, its own heading first; empty where there is nothing to tell apart."""

    def __post_init__(self) -> None:
        wrong = [line for line in self.lines if len(line) != len(self.columns)]
        if wrong:
            raise ValueError(f"a line of {len(wrong[0])} cells under {len(self.columns)} columns: {wrong[0]}")
