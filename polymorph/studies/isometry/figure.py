"""Is an isometry possible? What keeps members apart after the best rotation, site by site."""

import math

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import INTERVAL, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import CONTROL_COLOURS, INK, map_colour, site_rows, style
from polymorph.plotting.table_rows import at_site, measured

NAME, TITLE = "isometry", "What the best rotation leaves, and what the spectra alone keep apart"
PARTS = {"spectral_distance": "#7a7a7a", "relational_distance": "#9ecae8"}
ANGLE = Strip("Procrustes angle, CKA", map_colour("orthogonal"), offset=-0.12)
PERMUTED = Strip("documents permuted (control)", CONTROL_COLOURS["documents_permuted"], "s", False, 0.2)
TOTAL = Strip("one directed pair, both parts", INK, ".", median=False)


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Bars of the two distances beside the Procrustes angle and CKA; `ladder` lends counts to the caption."""
    if any(measured(rows, metric).is_empty() for metric in PARTS):
        return Missing(NAME, TITLE, "No distances between members were measured.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A row a site."""
    sites = sites_in_order(rows)
    with style():
        figure, (bars, angle, cka) = site_rows(sites, (2.6, 1.5, 1.2))
        _bars(bars, sites, rows)
        for strip, role in ((ANGLE, "estimate"), (PERMUTED, "control")):
            found = measured(rows, "procrustes_angle", role)
            strip.draw(angle, sites, found.with_columns(pl.col("value", "low", "high") * 180 / math.pi))
        ANGLE.draw(cka, sites, measured(rows, "cka"))
        bars.set_xlabel("share of the target's variance")
        angle.set_xlabel("angle, degrees")
        cka.set_xlabel("debiased CKA")
        bars.set_xlim(left=0)
        angle.set_xlim(0, max(95.0, angle.get_xlim()[1]))
        angle.set_xticks([0, 30, 60, 90])
        cka.set_xlim(min(-0.05, cka.get_xlim()[0]), 1.05)
        patches = [
            Patch(color=colour, label=name.replace("_", " ").replace("distance", "part"))
            for name, colour in PARTS.items()
        ]
        handles = [*patches, TOTAL.handle, ANGLE.handle, PERMUTED.handle]
        figure.legend(handles=handles, loc="outside upper left", ncols=3)
        return settle(figure)


def _bars(axes: Axes, sites: list[str], rows: pl.DataFrame) -> None:
    totals = rows.filter(pl.col("metric").is_in(list(PARTS)) & (pl.col("role") == "estimate"))
    totals = totals.group_by("site", "source", "target").agg(pl.col("value").sum(), low=None, high=None)
    for row, site in enumerate(sites):
        left = 0.0
        for metric, colour in PARTS.items():
            mean = float(at_site(measured(rows, metric), site)["value"].mean())  # type: ignore[arg-type]
            axes.barh(row, mean, left=left, height=0.55, color=colour)
            left += mean
    TOTAL.draw(axes, sites, totals.cast({"low": pl.Float64, "high": pl.Float64}))


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    return " ".join(
        [
            "What is left between two members after the best orthogonal map splits exactly into a spectral part, "
            "Σ(√λ_x − √λ_y)², which no rotation can remove, and a relational part, 2[Σ√(λ_x λ_y) − ‖C_xy‖_*], "
            "which comes from how tokens correspond.",
            "Both are shares of the target's variance tr C_y on the eval split; bars are means over directed "
            "pairs, dots the sum of a pair; at angle and CKA, a dot is a pair and a bar the median.",
            "The Procrustes angle is arccos(tr(Rᵀ C_xy) / √(tr C_x tr C_y)) with R fitted on the fit split: 0° "
            "for a rotated copy, 90° for nothing in common; squares are R fitted on documents paired at random.",
            "CKA is linear and debiased over document blocks: about 0 for unrelated members, 1 for a rotated "
            "copy.",
            f"Data: {study_behind(rows.filter(pl.col('split') == 'eval'), ladder, ('fit', 'eval'))}",
            f"Thin whiskers at angle and CKA: {INTERVAL[0].lower()}{INTERVAL[1:]}",
            "A small spectral part does not show an isometry: unrelated members of one spectrum have none, and "
            "all of their distance is relational. Pairs share seeds: dots are not independent.",
        ]
    )
