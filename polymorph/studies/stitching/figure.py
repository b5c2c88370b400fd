"""Can the upper part of one member read the lower part of another? What it costs, by site and map."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.evidence.function_scores import SUM
from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import INTERVAL, steps_behind, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.sae_panels import lane, median
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import CEILING, site_rows, style
from polymorph.plotting.table_rows import at_site
from polymorph.plotting.wording import counted, number, plain
from polymorph.studies.sae_transfer.figure import Series, through, unpaired
from polymorph.studies.stitching.rows import DOCUMENTS
from polymorph.studies.stitching.runs import CONSTANT

NAME, TITLE = "stitching", "Members stitched together: what it costs"
LOSS, RECOVERED = "delta_loss_target", "loss_recovered"
UNTRAINED = unpaired("untrained", "affine")
PREVIOUS = Series(
    Strip("its own previous checkpoint, orthogonal: the ceiling", CEILING, filled=False),
    "ceiling",
    "orthogonal",
)
SERIES = (
    PREVIOUS,
    *(through(name) for name in ("identity", "orthogonal", "similarity", "affine")),
    UNTRAINED,
    unpaired("documents_permuted", "orthogonal"),
    unpaired("covariance_only", "orthogonal"),
)
NEARLY_NOTHING = 0.01  # nats a token: below, the axis is linear, so that 0 and less have a place
FLOOR = -1.0
"""Of the share recovered: what lies below is counted in the caption."""


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Of all heads together, or of the only one; `ladder` lends counts to the caption."""
    if rows.filter(metric=LOSS, role="estimate").is_empty():
        return Missing(NAME, TITLE, "Nothing was stitched: that needs members that are models.")
    shown = of_head(rows)
    return Plate(NAME, TITLE, _caption(rows, shown, ladder), draw(shown))


def of_head(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of all heads together; where there is one head alone, its rows."""
    heads = sorted(rows["head"].drop_nulls().unique().to_list())
    return rows.filter(pl.col("head") == (SUM if SUM in heads else heads[0]))


def draw(rows: pl.DataFrame) -> Figure:
    """A row a site, in it a lane a map."""
    sites = sites_in_order(rows)
    series = [one for one in SERIES if not one.of(rows, LOSS, None).is_empty()]
    shares = rows.filter(metric=RECOVERED, convention=CONSTANT)
    with style():
        figure, panels = site_rows(
            sites, (1.25, 1.0) if shares.height else (1.0,), row=0.2 + 0.16 * len(series)
        )
        for place, one in enumerate(series):
            strip = lane(one.strip, place, len(series))
            strip.draw(panels[0], sites, one.of(rows, LOSS, None))
            if shares.height:
                lane(_cut(one.strip), place, len(series)).draw(
                    panels[1], sites, one.of(rows, RECOVERED, CONSTANT)
                )
        _loss_axis(panels[0], pl.concat([one.of(rows, LOSS, None) for one in series]))
        if shares.height:
            _share_axis(panels[1])
        figure.legend(handles=[one.strip.handle for one in series], loc="outside upper left", ncols=3)
        return settle(figure)


def _cut(strip: Strip) -> Strip:
    return Strip(strip.label, strip.colour, strip.marker, strip.filled, floor=FLOOR)


def _loss_axis(axes: Axes, rows: pl.DataFrame) -> None:
    """Nats, logarithmic above `NEARLY_NOTHING`."""
    least, most = float(rows["value"].min()), 1.6 * float(rows["value"].max())  # type: ignore[arg-type]
    axes.set_xscale("symlog", linthresh=NEARLY_NOTHING, linscale=0.5)
    axes.set_xlim(min(-1.2 * NEARLY_NOTHING, 1.6 * least), max(most, 10 * NEARLY_NOTHING))
    marks = [-NEARLY_NOTHING, 0.0, *(10.0**power for power in range(-2, 6) if 10.0**power <= most)]
    axes.set_xticks(marks, [f"{mark:g}".replace("-", "−") for mark in marks])
    axes.set_xticks([], minor=True)
    axes.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    axes.set_xlabel("loss above the target's, nats a token")


def _share_axis(axes: Axes) -> None:
    axes.set_xlim(FLOOR - 0.05, 1.06)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
    axes.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    axes.set_xlabel("share of the loss recovered")


def _caption(rows: pl.DataFrame, shown: pl.DataFrame, ladder: pl.DataFrame) -> str:
    estimates = shown.filter(metric=LOSS, role="estimate")
    head = shown["head"][0]
    what = "summed over heads" if head == SUM else f"of the head {plain(head)}"
    shares = pl.concat([one.of(shown, RECOVERED, CONSTANT) for one in SERIES])
    low = shares.filter(pl.col("value") < FLOOR).height
    sentences = [
        "The lower part of one member runs up to a site, a map carries its residual stream over, and the upper part "
        "of another goes on.",
        f"Left, by how much the loss, {what}, is above that of the upper member by itself, one dot a directed pair at "
        f"{steps_behind(estimates)} (logarithmic above {NEARLY_NOTHING}, linear below).",
        "Right, (CE_constant − CE) / (CE_constant − CE_target), with CE_constant the entropy of the labels: 1 is no "
        "loss at all, 0 no better than the best answer that is always the same, below 0 worse than that."
        if shares.height
        else "No target is better than the best constant answer, so no share recovered is given.",
        _medians(shown),
        "Maps are fitted on the fit split. "
        + _control_sentence(shown)
        + " A member stitched to itself is itself; the ceiling is its previous checkpoint under its last.",
        f"Data: {study_behind(estimates, ladder, ('fit', 'eval'))} Models are run on the first eval documents, at "
        f"most {DOCUMENTS}.",
        f"Whiskers: {INTERVAL[0].lower()}{INTERVAL[1:]} Pairs share seeds: dots are not independent.",
    ]
    if low:
        sentences.append(f"{counted(low, 'share')} below {number(FLOOR, 0)} lie off the scale.")
    return " ".join(sentences)


def _medians(shown: pl.DataFrame) -> str:
    told = []
    for site in sites_in_order(shown):
        here = at_site(shown, site)
        each = (median(through(name).of(here, LOSS, None)) for name in ("identity", "orthogonal", "affine"))
        told.append(f"{site} " + ", ".join(number(value, 2) for value in each))
    return f"Median loss above the target's through identity, orthogonal, affine: {'; '.join(told)}."


def _control_sentence(shown: pl.DataFrame) -> str:
    unseen = (
        "Controls that have not seen the pairing: maps fitted on documents paired at random with positions kept, and "
        "covariance only, eigenbases matched with random signs."
    )
    if UNTRAINED.of(shown, LOSS, None).is_empty():
        return unseen + " There are no checkpoints from before training to put under a member."
    return unseen + (
        " Untrained: the lower part is that of the source before its first step, with an affine map fitted to it; "
        "what an affine map reaches from there as well is no sign of a shared computation."
    )
