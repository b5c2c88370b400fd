"""The four figures of the paper for print: the paper's convention and the sound one beside each other.

Each takes the tables of an analysis and a number of columns of a page, 1 or 2, and gives a `Plate` or says why not.
"""

from collections.abc import Callable, Mapping

import polars as pl

from polymorph.papers.mccann2026.figures import firing, rotation, sae_transfer, steering
from polymorph.plotting.plate import Drawn

Draw = Callable[[Mapping[str, pl.DataFrame], int], Drawn]

PAPER_FIGURES: Mapping[str, Draw] = {
    sae_transfer.NAME: sae_transfer.plate,
    rotation.NAME: rotation.plate,
    steering.NAME: steering.plate,
    firing.NAME: firing.plate,
}
"""By name, in the order of the paper's tables."""


def for_paper(name: str, tables: Mapping[str, pl.DataFrame], columns: int = 1) -> Drawn:
    """One of them; `tables` are those of an analysis by study, of the ladder the rows of the last steps."""
    if name not in PAPER_FIGURES:
        raise ValueError(f"there is no figure {name!r}: one of {', '.join(PAPER_FIGURES)}")
    return PAPER_FIGURES[name](tables, columns)
