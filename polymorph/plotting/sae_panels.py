"""What the figures of SAEs share: their families, their rows by use, and rows of sites for each family."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import INK, site_rows
from polymorph.plotting.table_rows import at_site
from polymorph.plotting.wording import number, plain

FEW_LANES = 4  # rows of sites with more lanes are higher


def families_of(rows: pl.DataFrame) -> list[str]:
    """The families of SAEs, by name."""
    return sorted(rows["sae"].drop_nulls().unique().to_list())


def of_family(rows: pl.DataFrame, family: str) -> pl.DataFrame:
    """The rows of one family."""
    return rows.filter(pl.col("sae") == family)


def used(
    rows: pl.DataFrame,
    metric: str,
    convention: str | None = None,
    *,
    role: str = "estimate",
    map: str | None = None,
    control: str | None = None,
) -> pl.DataFrame:
    """The rows of a metric for one use of the SAEs: None in a column asks for rows that hold nothing there."""
    about = {"metric": metric, "convention": convention, "role": role, "map": map, "control": control}
    asked = [pl.col(name).eq_missing(value) for name, value in about.items() if name in rows.columns]
    return rows.filter(*asked).sort("source", "target")


def median(rows: pl.DataFrame) -> float | None:
    """Of the values; None without any."""
    return None if rows.is_empty() else float(rows["value"].median())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Place:
    """A family at a site, and its row in a figure."""

    family: str
    site: str
    row: int
    several: bool = False
    """Whether there are other families, so that its own has to be named."""

    def of(self, rows: pl.DataFrame) -> pl.DataFrame:
        return at_site(of_family(rows, self.family), self.site)

    def median(self, rows: pl.DataFrame, digits: int = 2) -> str:
        """Of its rows, as text."""
        return number(median(self.of(rows)), digits)

    def __str__(self) -> str:
        return f"{self.site} of {self.family}" if self.several else self.site


def places_of(rows: pl.DataFrame) -> list[Place]:
    """Every family at every site, family by family."""
    families, sites = families_of(rows), sites_in_order(rows)
    each = [(family, site) for family in families for site in sites]
    return [Place(family, site, row, len(families) > 1) for row, (family, site) in enumerate(each)]


def place_rows(places: Sequence[Place], widths: Sequence[float], lanes: int) -> tuple[Figure, list[Axes]]:
    """As `site_rows`, with a row a place that is high enough for so many lanes, and a line between families."""
    height = 0.2 + 0.16 * max(lanes, FEW_LANES)
    figure, panels = site_rows([place.site for place in places], widths, row=height)
    several = len({place.family for place in places}) > 1
    for before, after in itertools.pairwise(places):
        if before.family != after.family:
            for axes in panels:
                axes.axhline(after.row - 0.5, color=INK, linewidth=0.9)
    if several:
        labels = [f"{plain(place.site)}\n{plain(place.family)}" for place in places]
        panels[0].set_yticks(range(len(places)), labels)
    return figure, panels


def lane(strip: Strip, number: int, lanes: int) -> Strip:
    """The strip in one of so many lanes of a row, counted from 0 at the top."""
    width = 0.88 / lanes
    return replace(strip, offset=(number + 0.5) * width - 0.44, spread=0.3 * width, reach=0.1 * width)


def draw_at(axes: Axes, strip: Strip, places: Sequence[Place], rows: pl.DataFrame) -> None:
    """The rows of every place as dots in its row."""
    for place in places:
        here = of_family(rows, place.family)
        replace(strip, offset=strip.offset + place.row).draw(axes, [place.site], here)
