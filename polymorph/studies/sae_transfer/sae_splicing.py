"""What does a member lose with another's SAE in place of its own stream? Loss by site and map."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from polymorph.plotting.captions import INTERVAL, steps_behind, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.sae_panels import draw_at, lane, place_rows, places_of
from polymorph.plotting.style import R2_FLOOR, style
from polymorph.plotting.wording import counted, number
from polymorph.studies.sae_transfer.figure import OWN, Series, through, unpaired

NAME, TITLE = "sae_splicing", "SAEs spliced into other members: what it costs"
SERIES = (
    OWN,
    *(through(name) for name in ("identity", "orthogonal", "similarity", "affine")),
    unpaired("covariance_only", "orthogonal"),
    unpaired("predict_mean", None),
)
LOSS, RECOVERED = "delta_ce", "loss_recovered"
NEARLY_NOTHING = 0.01  # nats a token: below, the axis is linear, so that 0 and less have a place


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """From the table of the study `sae_transfer`; `ladder` lends counts to the caption."""
    if rows.filter(metric=LOSS, role="estimate").is_empty():
        reason = (
            "No reconstruction was spliced: that needs models, which go on computing from it, and their SAEs."
        )
        return Missing(NAME, TITLE, reason)
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A row a site, in it a lane a map."""
    places = places_of(rows.filter(pl.col("metric") == LOSS))
    series = _series(rows)
    with style():
        figure, (loss, recovered) = place_rows(places, (1.25, 1.0), len(series))
        for number_of, one in enumerate(series):
            strip = lane(one.strip, number_of, len(series))
            draw_at(loss, strip, places, one.of(rows, LOSS, None))
            draw_at(recovered, strip, places, one.of(rows, RECOVERED, None))
        _loss_axis(loss, rows)
        least = rows.filter(metric=RECOVERED)["value"].min()
        recovered.set_xlim(max(min(-0.05, 0.0 if least is None else float(least) - 0.05), R2_FLOOR), 1.06)  # type: ignore[arg-type]
        recovered.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
        recovered.set_xlabel("share of the loss recovered")
        handles = [one.strip.handle for one in series]
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
        return settle(figure)


def _series(rows: pl.DataFrame) -> list[Series]:
    return [one for one in SERIES if not one.of(rows, LOSS, None).is_empty()]


def _loss_axis(axes: Axes, rows: pl.DataFrame) -> None:
    """Nats, logarithmic above `NEARLY_NOTHING`."""
    values = rows.filter(metric=LOSS)["value"]
    least, most = float(values.min()), 1.6 * float(values.max())  # type: ignore[arg-type]
    axes.set_xscale("symlog", linthresh=NEARLY_NOTHING, linscale=0.5)
    axes.set_xlim(min(-1.2 * NEARLY_NOTHING, 1.6 * least), max(most, 10 * NEARLY_NOTHING))
    marks = [-NEARLY_NOTHING, 0.0, *(10.0**power for power in range(-2, 6) if 10.0**power <= most)]
    axes.set_xticks(marks, [f"{mark:g}".replace("-", "−") for mark in marks])
    axes.set_xticks([], minor=True)
    axes.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    axes.set_xlabel("Δ cross-entropy, nats a token")


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    estimates = rows.filter(metric=LOSS, role="estimate")
    low = rows.filter(pl.col("metric") == RECOVERED, pl.col("value") < R2_FLOOR).height
    sentences = [
        "Left, what the loss of a member rises by where the reconstruction of its site by the SAE of another, through "
        f"a map and back, replaces the site, one dot a directed pair at {steps_behind(estimates)} (logarithmic above "
        f"{NEARLY_NOTHING}, linear below); right, the share (CE_ablated − CE) / (CE_ablated − CE_clean) of what "
        "ablation costs that is recovered.",
        "Ablated is the site at its mean on the fit split (predict mean): 0 is recovered by that, and 1 is no loss "
        "at all. Left out on the right where ablation costs nothing.",
        "The own SAE is the ceiling. Controls, which have not seen the pairing: covariance only, eigenbases matched "
        "with random signs, and predict mean. Other maps stand in the table.",
        f"Data: {study_behind(estimates, ladder, ('fit', 'eval'))}",
        f"Whiskers, cut at the edge: {INTERVAL[0].lower()}{INTERVAL[1:]}",
        "Maps that have not seen the pairing recover much of the loss where little of the site is needed: read every "
        "share beside that of covariance only. Pairs share seeds and SAEs: dots are not independent.",
    ]
    if low:
        sentences.append(f"{counted(low, 'share')} below {number(R2_FLOOR, 0)} lie off the scale.")
    return " ".join(sentences)
