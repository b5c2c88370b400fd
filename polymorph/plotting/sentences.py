"""Numbers of rows as parts of a sentence and cells of a table, and which sites a sentence names.

Nothing is computed here but medians, ranges and counts of rows that a study has made.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.answer import Answer
from polymorph.plotting.sae_panels import median
from polymorph.plotting.table_rows import at_site
from polymorph.plotting.wording import DASH, counted, number

Show = Callable[[float], str]
ALIKE = 0.1
"""Of explained variance, or of a share of features: a control that comes as near explains most of it."""
MOST_LINES = 12
NO_CEILING = "There is no ceiling: no member was read at two checkpoints."
_ZERO = 1e-9  # what is smaller is rounding, in everything but weights
_NEARLY_ONE = 0.9995  # from here on three digits would say 1
_NEXT_TO_NOTHING = 1e-4  # of a share


def told(value: float | None) -> str:
    """Three significant digits with a true minus sign; what lies below 1 is never rounded up to it."""
    if value is None or not math.isfinite(value):
        return number(value)
    if abs(value) < _ZERO:
        return "0"
    if _NEARLY_ONE <= value < 1:
        return "> 0.999"
    if abs(value) >= 999.5:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:#.3g}".rstrip(".").replace("-", "−")


def share(value: float) -> str:
    """A share in percent, three digits; what lies below 1 is never rounded up to 100 %."""
    if value == 1:
        return "100 %"
    if 0 < value < _NEXT_TO_NOTHING:
        return f"< {100 * _NEXT_TO_NOTHING:g} %"
    return "> 99.9 %" if _NEARLY_ONE <= value < 1 else f"{told(100 * value)} %"


def tiny(value: float) -> str:
    """As a power of ten: of numbers whose size alone matters."""
    return f"{value:.0e}".replace("-", "−").replace("−0", "−")


def degrees(radians: float) -> str:
    """An angle in whole degrees."""
    return f"{number(math.degrees(radians), 0)}°"


def across(rows: pl.DataFrame, show: Show = told, of: str | None = None) -> str:
    """`0.72 (0.41 to 1.1 over 6 directed pairs)`; of one row its interval, where it has one.

    What the rows are of is told by their ends, unless `of` says it.
    """
    value = median(rows)
    if value is None:
        return "not measured"
    over, ends = of or _over(rows), _ends(rows, show)
    if rows.height > 1:
        same = ends[0] == ends[1]
        return f"{show(value)} ({'in each of' if same else ' to '.join(ends) + ' over'} {over})"
    low, high = rows["low"][0], rows["high"][0]
    if low is None or high is None:
        return f"{show(value)} ({over})"
    return f"{show(value)} (95 % interval {show(low)} to {show(high)}, {over})"


def middle(rows: pl.DataFrame, show: Show = told) -> str:
    """The median alone, for a control or a ceiling beside an estimate; a dash without rows."""
    value = median(rows)
    return DASH if value is None else show(value)


def cell(rows: pl.DataFrame, show: Show = told) -> str:
    """`median [least, greatest]` in a table; the value alone where all are told alike, a dash without any."""
    value = median(rows)
    if value is None:
        return DASH
    ends = _ends(rows, show)
    return show(value) if ends[0] == ends[1] else f"{show(value)} [{ends[0]}, {ends[1]}]"


def _ends(rows: pl.DataFrame, show: Show) -> tuple[str, str]:
    """The least and the greatest value."""
    low, high = float(rows["value"].min()), float(rows["value"].max())  # type: ignore[arg-type]
    return show(low), show(high)


def _over(rows: pl.DataFrame) -> str:
    """What the rows are of: members, pairs, or directed pairs."""
    ends = set(rows.select("source", "target").iter_rows())
    if all(source is None or target is None or source == target for source, target in ends):
        return counted(rows.height, "member")
    directed = any((target, source) in ends for source, target in ends)
    return counted(rows.height, "directed pair" if directed else "pair")


def by_site(rows: pl.DataFrame) -> dict[str, float]:
    """Site → median of its rows, in the order of the computation."""
    found = ((site, median(at_site(rows, site))) for site in sites_in_order(rows))
    return {site: value for site, value in found if value is not None}


def near(controls: Mapping[str, float], values: Mapping[str, float]) -> list[str]:
    """The sites at which a control comes within `ALIKE` of a score, or above it."""
    return [site for site, value in values.items() if site in controls and controls[site] > value - ALIKE]


def of_sites(some: Sequence[object], all_of: Sequence[object], noun: str = "site") -> str:
    """`at all 5 sites`, `at 2 of 5 sites`, `at none of 5 sites`.

    Of two, `at both sites`; of one, `at the only site`, or `nowhere`.
    """
    n = counted(len(all_of), noun)
    if len(all_of) == 1:
        return f"at the only {noun}" if some else "nowhere"
    if not some:
        return f"at none of {n}"
    if len(some) < len(all_of):
        return f"at {len(some):,} of {n}"
    return f"at both {noun}s" if len(all_of) == 2 else f"at all {n}"


def together(names: Iterable[object], most: int = 6) -> str:
    """`a`, `a and b`, `a, b and c`; of more than `most`, the first and how many there are besides."""
    texts = [str(name) for name in names]
    if len(texts) > most:
        texts = [*texts[: most - 1], f"{len(texts) - most + 1:,} more"]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def at(sites: Sequence[object], among: Sequence[object] = ()) -> str:
    """`at a`, `at a and b`, `at a, b and c`; `at all 5 sites` where they are all of several."""
    everywhere = len(among) > 1 and len(sites) == len(among)
    return of_sites(sites, among) if everywhere else f"at {together(sites)}"


def joined(sentences: Iterable[str]) -> str:
    """One text of the sentences that there are."""
    return " ".join(sentence for sentence in sentences if sentence)


def shortened(lines: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """At most `MOST_LINES`: of more, the first, a line that says how many are left out, and the last."""
    if len(lines) <= MOST_LINES:
        return tuple(lines)
    left = len(lines) - MOST_LINES + 1
    gap = (f"… {left:,} more", *("…" for _ in lines[0][1:]))
    return (*lines[: MOST_LINES - 2], gap, lines[-1])


def nothing(text: str) -> Answer:
    """An answer that says what is missing, without a table."""
    return Answer(text, (), ())
