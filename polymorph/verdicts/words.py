"""The words that a verdict may be: one table, from which the page, the dashboards and the documents take theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Colour = Literal["isometric", "looser", "beyond", "open"]
"""The class of a mark on the page."""


@dataclass(frozen=True)
class Word:
    """`code` is its number on a dashboard, `meaning` what it says to somebody who reads it for the first time."""

    word: str
    code: int
    colour: Colour
    meaning: str


_TABLE = (
    Word("undetermined", 0, "open", "the data do not settle which kind of map relates the members"),
    Word("unrelated", 1, "beyond", "nothing relates the members beyond what position explains"),
    Word("related, beyond affine", 2, "beyond", "the members are related, and no linear map says all of how"),
    Word("affine", 3, "looser", "a linear map carries one member to another, and a rotation does not"),
    Word("similarity", 4, "looser", "a rotation and one common scale carry one member to another"),
    Word(
        "orthogonal",
        5,
        "isometric",
        "a rotation, in some pairs with a reflection, carries one member to another, and no freer linear map gains "
        "anything that counts",
    ),
    Word(
        "rotation",
        6,
        "isometric",
        "a rotation carries one member to another, and no freer linear map gains anything that counts",
    ),
)
WORDS: Mapping[str, Word] = MappingProxyType({entry.word: entry for entry in _TABLE})
"""From nothing said to the most that can be."""
UNKNOWN = Word("unknown", -1, "open", "which kind of map relates the members is not said")
"""In place of a word that the table does not have."""


def entry_of(word: str) -> Word:
    """The entry of a word, `UNKNOWN` for one that the table does not have."""
    return WORDS.get(word, UNKNOWN)
