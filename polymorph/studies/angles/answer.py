"""By which angles does R turn?"""

import math

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import at, joined, nothing, of_sites, shortened
from polymorph.plotting.table_rows import at_site, measured
from polymorph.plotting.wording import DASH, counted, number
from polymorph.studies.registry import table_of
from polymorph.studies.study import Tables

STUDY = "angles"
PARTS = {
    "below 45°": (0.0, math.pi / 4),
    "45° to 135°": (math.pi / 4, 3 * math.pi / 4),
    "above 135°": (3 * math.pi / 4, 4.0),
}
EXPECTED = (25, 50, 25)
"""Percent of the angles that a uniformly random rotation has in each of `PARTS`."""
_FAR = 0.1  # of a share, from what a uniformly random rotation has


def answer(rows: pl.DataFrame, tables: Tables) -> Answer:
    """Shares of small, middle and large angles beside those of a uniformly random rotation."""
    found = measured(rows, "eigenvalue_angle")
    if found.is_empty():
        return nothing("No two members were compared, so R has no angles to show.")
    sites = sites_in_order(found)
    r = {site: _determined(site, tables) for site in sites}
    lines = [
        (site, *(f"{number(100 * share, 0)} %" for share in _shares(at_site(found, site))), _told(r[site]))
        for site in sites
    ]
    columns = ("site", *(f"angles {part}" for part in PARTS), "dimensions determined")
    lines.append(("a uniformly random rotation", *(f"{share} %" for share in EXPECTED), DASH))
    return Answer(joined([_spread(found, sites), _undetermined(r)]), columns, shortened(lines))


def _shares(here: pl.DataFrame) -> list[float]:
    size = here["value"].abs()
    return [float(((size >= low) & (size < high)).mean()) for low, high in PARTS.values()]  # type: ignore[arg-type]


def _determined(site: str, tables: Tables) -> tuple[int, int] | None:
    """(r, d) of the least determined pair, from the study of the support, or else from the ladder."""
    support = at_site(table_of(tables, "support"), site)
    r, d = measured(support, "determined_dimension")["value"], measured(support, "dimension")["value"]
    if len(r) and len(d):
        return int(r.min()), int(d.max())  # type: ignore[arg-type]
    ladder = at_site(table_of(tables, "ladder"), site)
    r, scale = (
        measured(ladder, metric)["value"] for metric in ("determined_dimension", "frobenius_haar_scale")
    )
    return (int(r.min()), round(float(scale[0]) ** 2 / 2)) if len(r) and len(scale) else None  # type: ignore[arg-type]


def _told(r: tuple[int, int] | None) -> str:
    return DASH if r is None else f"{r[0]} of {r[1]}"


def _spread(found: pl.DataFrame, sites: list[str]) -> str:
    small = {site: _shares(at_site(found, site))[0] for site in sites}
    least, most = min(small, key=lambda site: small[site]), max(small, key=lambda site: small[site])
    far = [site for site in sites if abs(small[site] - 0.25) > _FAR]
    n = counted(found.height, "angle")
    ends = f"{number(100 * small[most], 0)} % at {most}"
    ends = ends if most == least else f"{number(100 * small[least], 0)} % at {least} to {ends}"
    start = f"Of {n}, {ends} are below 45°, where a uniformly random rotation has 25 %"
    if not far:
        return f"{start}: R turns by every angle, which is no evidence that it is random, since almost any matrix does."
    return f"{start}: {of_sites(far, sites)} R is far from that."


def _undetermined(r: dict[str, tuple[int, int] | None]) -> str:
    short = [site for site, of in r.items() if of is not None and of[0] < of[1]]
    if short:
        return f"They are not those of the members {at(short, list(r))}, where the data do not determine R whole."
    unknown = [site for site, of in r.items() if of is None]
    return f"How much of R is determined was not measured {at(unknown, list(r))}." if unknown else ""
