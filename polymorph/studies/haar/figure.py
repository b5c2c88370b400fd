"""Is R like a uniformly random rotation? Every statistic against its law, site by site."""

from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from polymorph.alignment.haar import REGISTERED, STATISTICS
from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.style import map_colour, site_grid, style
from polymorph.plotting.table_rows import at_site
from polymorph.plotting.wording import listed, number, plain

NAME, TITLE = "haar", "Statistics of R against their laws under Haar"
LINEAR = 4.0  # of z; beyond it the axis is logarithmic
LABELS = {
    "trace": "tr R",
    "power_traces": "χ² of tr Rᵏ, k ≤ 10",
    "signed_permutation_overlap": "signed-permutation overlap",
    "largest_entry": "largest |entry|",
    "fourth_moment": "fourth moment κ₄",
    "permutation_distance": "distance to a permutation",
    "eigenangle_ks": "KS of angles, calibrated",
}
LAWS = {"refit": ("law by refitting", "o", -0.13), "exact": ("law of an exactly known R", "D", 0.2)}
"""Law → how it is named, its mark, and the place of the mark in its row."""


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """z of every statistic; `Missing` where the test was refused at every site. `ladder` lends counts."""
    if rows.is_empty():
        return Missing(NAME, TITLE, "R was not compared with Haar.")
    if rows.filter(pl.col("metric") == "z").is_empty():
        refused = listed(f"{site}: {_determined(at_site(rows, site))}" for site in sites_in_order(rows))
        return Missing(
            NAME, TITLE, f"Refused, since the data do not determine R. Dimensions determined: {refused}."
        )
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """A panel a site, a row a statistic; where the test was refused, the panel says so."""
    sites = sites_in_order(rows)
    names = [name for name in STATISTICS if name in rows["statistic"].to_list()]
    widest = float(rows.filter(pl.col("metric") == "z")["value"].abs().max())  # type: ignore[arg-type]
    with style():
        figure, panels = site_grid(sites, panel_height=2.6)
        panels[0].set_yticks(range(len(names)), [LABELS.get(name, plain(name)) for name in names])
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        _z_axis(panels[0], max(LINEAR, widest))
        for axes, site in zip(panels, sites, strict=True):
            _panel(axes, at_site(rows, site), names)
        figure.supxlabel("z: (value − mean of the law) / its standard deviation", fontsize=10)
        figure.legend(handles=list(_handles()), loc="outside upper left", ncols=3)
        return settle(figure)


def _panel(axes: Axes, rows: pl.DataFrame, names: list[str]) -> None:
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    scored = rows.filter(pl.col("metric") == "z")
    if scored.is_empty():
        axes.text(
            0.5, 0.5, f"refused:\n{_determined(rows)}", transform=axes.transAxes, ha="center", va="center"
        )
        return
    axes.axvspan(-2, 2, color="#efefef", zorder=0.4)
    axes.axvline(0, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    for law, (_, marker, offset) in LAWS.items():
        for row, name in enumerate(names):
            values = scored.filter((pl.col("law") == law) & (pl.col("statistic") == name))["value"]
            axes.plot(values, [row + offset] * len(values), marker, **_look(name, law), zorder=3)
    if not (p := rows.filter(pl.col("metric") == "paper_ks_p")["value"]).is_empty():
        title = f"{axes.get_title(loc='left')}\nuncalibrated KS p = {number(float(p[0]))}"
        axes.set_title(title, fontsize=9.5)


def _look(name: str, law: str) -> dict[str, Any]:
    """The registered pair is large and blue; the law of an exactly known R is open."""
    registered = name in REGISTERED
    colour = map_colour("orthogonal") if registered else "#707070"
    size = (7.5 if registered else 5.0) * (1.0 if law == "refit" else 0.7)
    return {"color": colour, "mfc": colour if law == "refit" else "white", "markersize": size}


def _handles() -> list[Line2D]:
    marks = [
        Line2D([], [], linestyle="", marker=marker, label=f"{kind}{label}", **_look(name, law))
        for law, (label, marker, _) in LAWS.items()
        for name, kind in ((REGISTERED[0], "registered, "), ("", ""))
    ]
    return [*marks, Line2D([], [], color="#e2e2e2", linewidth=8, label="±2 standard deviations")]


def _z_axis(axes: Axes, widest: float) -> None:
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=1.2)
    axes.set_xlim(-1.8 * widest, 1.8 * widest)
    marks = [0, 2, *[10**k for k in range(1, 9) if 10**k <= 1.8 * widest][-1:]]
    axes.xaxis.set_major_locator(FixedLocator([*(-mark for mark in marks if mark), *marks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda z, _: f"{z:g}".replace("-", "−")))


def _determined(rows: pl.DataFrame) -> str:
    counts = rows.filter(pl.col("metric").is_in(["determined_dimension", "dimension"]))["value"].to_list()
    return f"{min(counts):.0f} of {max(counts):.0f}"


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    sites = sites_in_order(rows)
    refused = [site for site in sites if at_site(rows, site).filter(pl.col("metric") == "z").is_empty()]
    return " ".join(
        [
            "z of every statistic of R, averaged over the independent maps of the cohort (n − 1 synchronised frames "
            "of n members), against its law under Haar; grey, the band of ±2 standard deviations, and the axis is "
            f"logarithmic beyond {LINEAR:g}.",
            "Blue is the registered pair, χ² of the traces of powers and the signed-permutation overlap: it alone "
            "decides, by p-values adjusted with Holm; grey statistics describe.",
            "Filled: the law repeats the estimation on resampled residuals; open: as if R were known exactly.",
            "Over a panel, the p of a Kolmogorov–Smirnov test of the eigenvalue angles as in the paper: it is not "
            "calibrated, has size 0, and a p near 1 is what it gives to almost any matrix.",
            f"Refused at {len(refused)} of {len(sites)} sites, where fewer dimensions are determined than there "
            "are: the rest of R would look like Haar by construction."
            if refused
            else "At no site was the test refused.",
            f"Data: {study_behind(rows, ladder)}",
            "Several laws are skewed, so a z outside the band is no p-value, and there is no interval. Haar is the "
            "trivial hypothesis: the finding is a departure from it.",
        ]
    )
