"""Are the members related at all? The RV coefficient beside what permuted documents reach."""

import polars as pl
from matplotlib.figure import Figure

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import CONTROL_COLOURS, map_colour, site_rows, style
from polymorph.plotting.table_rows import at_site, measured

NAME, TITLE = "pairing", "Relation of members beside what permuted documents reach"
OBSERVED = Strip("a pair, as observed", map_colour("orthogonal"), offset=-0.16)
NULL = Strip(
    "the same pair, mean over permuted documents", CONTROL_COLOURS["documents_permuted"], "s", False, 0.18
)


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Pairs and their null by site; `ladder` lends counts to the caption."""
    if measured(rows, "rv_coefficient").is_empty():
        return Missing(NAME, TITLE, "The pairing of members was not tested.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A row a site, with the p of all members together at its end."""
    sites = sites_in_order(rows)
    together = rows.filter((pl.col("metric") == "p_value") & pl.col("source").is_null())
    with style():
        figure, (axes,) = site_rows(sites, (1.0,))
        for strip, role in ((OBSERVED, "estimate"), (NULL, "null")):
            strip.draw(axes, sites, measured(rows, "rv_coefficient", role))
        axes.set_xlim(min(-0.03, axes.get_xlim()[0]), 1.22)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        for row, site in enumerate(sites):
            p = at_site(together, site)["value"]
            if not p.is_empty():
                axes.annotate(f"p = {float(p[0]):.2g}", (1.04, row), va="center", fontsize=9.5)
        axes.set_xlabel("RV coefficient: 0 unrelated, 1 a scaled rotation")
        figure.legend(handles=[OBSERVED.handle, NULL.handle], loc="outside upper left", ncols=2)
        return settle(figure)


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    return " ".join(
        [
            "The RV coefficient of each unordered pair, ‖C_xy‖² / (‖C_x‖ ‖C_y‖) in Frobenius norms over centred "
            "tokens, beside its mean when whole documents of one member are permuted and positions kept: what "
            "position in a document explains by itself.",
            "p is that of all members together, (1 + #{T* ≥ T}) / (draws + 1), one-sided and not yet adjusted; the "
            "verdicts adjust it with Holm. Its least possible value is 1 / (draws + 1).",
            f"Data: {study_behind(rows, ladder)}",
            "A small p says that the members have something to do with one another beyond position, and nothing of "
            "how: neither that a rotation relates them nor how well. Pairs share seeds; no intervals.",
        ]
    )
