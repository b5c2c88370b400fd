"""The ledger in a terminal: plain lines, as wide as there is room."""

import textwrap
from collections.abc import Iterator, Sequence

from polymorph.papers.mccann2026.ledger import NOT_REPRODUCED, PLACE, REPRODUCED, Judged
from polymorph.papers.mccann2026.ledger_rows import (
    HEADINGS,
    in_rows,
    of_ours,
    of_paper,
    of_sound,
    summary,
    to_be_run,
)
from polymorph.plotting.wording import counted, printable

LEAST, MOST = 100, 180
SHARES = (0.28, 0.17, 0.18, 0.19, 0.18)
"""Of the width, for the columns."""


def ledger_lines(judged: Sequence[Judged], width: int) -> Iterator[str]:
    """Every claim under its row, with the reason of every verdict that is not plain, and the counts at the end."""
    widths = [int(share * max(LEAST, min(width, MOST))) - 2 for share in SHARES]
    yield from _columns(HEADINGS, widths)
    for row, own in in_rows(judged):
        yield ""
        yield printable(row)
        for one in own:
            yield from _columns(_cells(one), widths)
            if note := _note(one):
                yield from textwrap.wrap(
                    printable(note), sum(widths), initial_indent="      ", subsequent_indent="      "
                )
    for command, own in to_be_run(judged).items():
        yield ""
        yield f"To run the {counted(len(own), 'claim')} with {own[0].entry.id} and the like:"
        yield f"  {command}"
    yield ""
    yield from textwrap.wrap(summary(judged), max(LEAST, min(width, MOST)))


def _cells(one: Judged) -> tuple[str, ...]:
    return (
        f"  {one.entry.claim}",
        of_paper(one.entry.paper),
        of_ours(one),
        of_sound(one.sound),
        one.told,
    )


def _note(one: Judged) -> str:
    """Why, where the verdict alone does not say it."""
    plain = one.verdict in (REPRODUCED, NOT_REPRODUCED) and one.reason in PLACE.values()
    return "" if plain else one.reason


def _columns(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """The cells beside each other, each wrapped to its width."""
    wrapped = [
        textwrap.wrap(printable(cell), width, subsequent_indent="  " if place == 0 else "") or [""]
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    for line in range(max(map(len, wrapped))):
        parts = [
            (own[line] if line < len(own) else "").ljust(width)
            for own, width in zip(wrapped, widths, strict=True)
        ]
        yield "  ".join(parts).rstrip()
