"""Do the maps of a cohort agree round a cycle? Coherence, and what one common frame costs."""

import polars as pl
from matplotlib.figure import Figure

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import INTERVAL, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import CONTROL_COLOURS, R2_FLOOR, map_colour, site_rows, style
from polymorph.plotting.table_rows import at_site, measured
from polymorph.plotting.wording import counted, listed, number

NAME, TITLE = "cycles", "Agreement round a cycle, and one frame for all members"
COHERENCE = (
    ("estimate", Strip("a triangle of members", map_colour("orthogonal"), offset=-0.15)),
    (
        "control",
        Strip("documents permuted (control)", CONTROL_COLOURS["documents_permuted"], "s", False, 0.2),
    ),
)
FRAMES = (
    ("pairwise_r2", Strip("R² of pairwise maps", map_colour("orthogonal"), "s", offset=-0.26)),
    (
        "synchronised_r2",
        Strip("R² of synchronised maps", map_colour("similarity"), "D", offset=0.0),
    ),
    ("consensus_r2", Strip("R² of the consensus of the others", "#222222", "^", False, 0.26)),
)


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Triangles and frames by site; `ladder` lends counts to the caption."""
    if measured(rows, "pairwise_r2").is_empty():
        return Missing(NAME, TITLE, "No cycle of members was closed.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A row a site."""
    sites = sites_in_order(rows)
    with style():
        figure, (coherence, frames) = site_rows(sites, (1.0, 1.2))
        for role, strip in COHERENCE:
            strip.draw(coherence, sites, measured(rows, "cycle_coherence", role))
        lowest = 0.0
        for metric, strip in FRAMES:
            found = measured(rows, metric)
            strip.draw(frames, sites, found)
            lowest = min(lowest, float(found["value"].min()))  # type: ignore[arg-type]
        for row, site in enumerate(sites):
            if at_site(measured(rows, "cycle_coherence"), site).is_empty():
                coherence.text(0.5, row, "none: r = 0", ha="center", va="center", fontsize=9)
        coherence.set_xlim(min(-0.3, coherence.get_xlim()[0]), 1.06)
        frames.set_xlim(max(lowest - 0.08, R2_FLOOR), 1.06)
        coherence.set_xlabel("cycle coherence on the support")
        frames.set_xlabel("R² on the eval split")
        handles = [strip.handle for _, strip in (*COHERENCE, *FRAMES)]
        figure.legend(handles=handles, loc="outside upper left", ncols=2)
        return settle(figure)


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    triangles = measured(rows, "cycle_coherence").select("source", "target", "third").n_unique()
    r = [
        f"{site} {float(at_site(rows, site).filter(metric='determined_dimension')['value'].min()):.0f}"  # type: ignore[arg-type]
        for site in sites_in_order(rows)
    ]
    low = rows.filter(pl.col("metric").is_in([m for m, _ in FRAMES]) & (pl.col("value") < R2_FLOOR)).height
    sentences = [
        "Left, tr(Pᵀ R_ij R_jk R_ki P)/r of each triangle of members, P spanning the r directions that all pairs "
        "determine: 1 where the maps round a triangle undo each other, about 0 where they have nothing in "
        f"common; r: {listed(r)}.",
        "The control permutes the documents of every member once for all of its pairs.",
        "Right, R² of maps that pass through one frame for all members beside that of maps fitted to each pair, "
        "and of the mean of the other members in that frame as a prediction of each member.",
        f"Data: {study_behind(rows, ladder)} {counted(triangles, 'triangle')}.",
        f"Whiskers of R²: {INTERVAL[0].lower()}{INTERVAL[1:]}",
        "Triangles share members and pairs share seeds: dots are not independent, and coherence has no "
        "interval. Maps that all follow position in the document agree round a cycle too: that is what the "
        "control shows.",
    ]
    if low:
        sentences.append(f"{counted(low, 'score')} below {number(R2_FLOOR, 0)} lie off the scale.")
    return " ".join(sentences)
