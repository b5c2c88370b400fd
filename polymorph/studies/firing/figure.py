"""Does an SAE fire on another member as on its own? Features whose firing agrees, raw and mapped."""

from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from polymorph.plotting.captions import steps_behind, study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.sae_panels import draw_at, lane, place_rows, places_of, used
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import CEILING, CONTROL_COLOURS, CONTROL_MARKERS, map_colour, style
from polymorph.plotting.wording import counted
from polymorph.studies.firing.rows import LIVE, PAPER, PERMUTED

NAME, TITLE = "firing", "Features that fire on another member as on their own"
SHARE = "firing_correlation_share"
CONVENTIONS = {PAPER: "of all features (paper)", LIVE: "of features live on both sides"}


@dataclass(frozen=True)
class _Series:
    strip: Strip
    map: str
    role: str = "estimate"
    control: str | None = None

    def of(self, rows: pl.DataFrame, convention: str) -> pl.DataFrame:
        return used(rows, SHARE, convention, role=self.role, map=self.map, control=self.control)


def _permuted(name: str, label: str) -> _Series:
    strip = Strip(label, CONTROL_COLOURS[PERMUTED], CONTROL_MARKERS[PERMUTED], filled=False)
    return _Series(strip, name, "control", PERMUTED)


SERIES = (
    _Series(Strip("identity: raw", map_colour("identity")), "identity"),
    _Series(Strip("orthogonal", map_colour("orthogonal")), "orthogonal"),
    _Series(Strip("similarity", map_colour("similarity")), "similarity"),
    _Series(Strip("affine", map_colour("affine")), "affine"),
    _permuted("orthogonal", "documents permuted (control)"),
    _Series(Strip("the same member twice (ceiling)", CEILING, filled=False), "orthogonal", "ceiling"),
)


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Shares in both conventions; `ladder` lends counts to the caption."""
    if rows.filter(metric=SHARE, role="estimate").is_empty():
        return Missing(NAME, TITLE, "No SAE read the tokens of another member than its own.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A row a site, in it a lane a map."""
    places = places_of(rows.filter(pl.col("metric") == SHARE))
    series = [one for one in SERIES if any(one.of(rows, convention).height for convention in CONVENTIONS)]
    with style():
        figure, panels = place_rows(places, (1.0, 1.0), len(series))
        for axes, (convention, title) in zip(panels, CONVENTIONS.items(), strict=True):
            for number, one in enumerate(series):
                draw_at(axes, lane(one.strip, number, len(series)), places, one.of(rows, convention))
            axes.set_xlim(-0.04, 1.04)
            axes.set_xlabel(f"share with r > 0.5\n{title}")
        figure.legend(handles=[one.strip.handle for one in series], loc="outside upper left", ncols=3)
        return settle(figure)


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    estimates = rows.filter(metric=SHARE, role="estimate")
    ceilings = rows.filter(metric=SHARE, role="ceiling")
    selves = counted(ceilings["source"].n_unique(), "seed")
    ceiling = (
        f"Open circles are the ceiling: a member against its previous checkpoint, or read again, through R ({selves})."
        if ceilings.height
        else "There is no ceiling: no member with an SAE was read twice."
    )
    return " ".join(
        [
            "Share of the features of an SAE whose activations on the tokens of another member, as they are (raw) or "
            "mapped to the SAE's own, correlate above 0.5 with those on the same tokens of its own member: one dot a "
            f"directed pair at {steps_behind(estimates)}, a bar their median.",
            "Left, of all features, a dead one being 0, as in the paper; right, of those that fire on both sides.",
            "Open squares are the control: through R, each token beside that of another document at the same "
            "position, which leaves what position alone explains.",
            ceiling,
            f"Data: {study_behind(estimates, ladder, ('fit', 'eval'))}",
            "One SAE takes part in a pair, so no initialisation is shared and no feature has to be found again. "
            "Shares have no intervals; pairs share seeds and SAEs.",
        ]
    )
