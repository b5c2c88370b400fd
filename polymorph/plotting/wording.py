"""Numbers and names as text: in sentences, in tables, and in figures, where `$` must not start a formula."""

import math
from collections.abc import Iterable, Sequence

import polars as pl

DASH = "–"  # stands for what is not there
LONGEST_NAME = 29  # characters of a name that fit above a panel


def printable(text: str) -> str:
    """The text with every control, format and surrogate character replaced, except line breaks and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def plain(text: str) -> str:
    """The text as matplotlib draws it literally: one line, its middle left out if long, no mathematics."""
    line = " ".join(printable(text).split())
    half = LONGEST_NAME // 2
    short = line if len(line) <= LONGEST_NAME else f"{line[:half]}…{line[-half:]}"
    return short.replace("$", r"\$")


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign; a dash for None."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return str(value)
    rounded = f"{value:.{digits}f}"
    return rounded.lstrip("-") if float(rounded) == 0 else rounded.replace("-", "−")


def percent(share: float | None) -> str:
    """A share as a percentage; what lies below 1 is never rounded up to 100 %."""
    if share is None or not math.isfinite(share):
        return number(share)
    return "> 99.99 %" if 0.99995 <= share < 1 else f"{100 * share:.2f} %"


def whole(value: int | None) -> str:
    """An integer with thousands separated; a dash for None."""
    return DASH if value is None else f"{value:,}"


def counted(n: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def between(values: Sequence[int], noun: str) -> str:
    """One number, or the range of several: `1,024 documents`, `980–1,024 documents`."""
    if not values:
        return f"{noun}s not recorded"
    low, high = min(values), max(values)
    return counted(low, noun) if low == high else f"{low:,}–{high:,} {noun}s"


def listed(values: Iterable[object], most: int = 12) -> str:
    """`0, 1, 2`; of more than `most`, the first and the last."""
    texts = [str(value) for value in values]
    return ", ".join(texts if len(texts) <= most else [*texts[: most - 2], "…", texts[-1]])


def spread(values: pl.Series, digits: int = 3) -> str:
    """`median [min, max]`, the value alone where there is one, a dash where there is none."""
    if values.is_empty():
        return DASH
    median, low, high = (number(float(v), digits) for v in (values.median(), values.min(), values.max()))  # type: ignore[arg-type]
    return median if len(values) == 1 else f"{median} [{low}, {high}]"
