"""Are members one model in their weights? How far apart they are by group, what lies between, and R from weights."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.captions import study_behind
from polymorph.plotting.plate import Drawn, Missing, Plate, settle
from polymorph.plotting.strips import Strip
from polymorph.plotting.style import (
    CEILING,
    CONTROL_COLOURS,
    R2_FLOOR,
    grid,
    map_colour,
    r2_along,
    style,
)
from polymorph.plotting.table_rows import measured
from polymorph.plotting.wording import counted, plain, spread
from polymorph.studies.weights.search import (
    COPY,
    GAUGE,
    IDENTITY,
    ORTHOGONAL,
    OWN_ROTATIONS,
    RESTARTS,
    RESTARTS_OF_NULLS,
    STREAM,
    UNTRAINED,
)

NAME, TITLE = "weights", "Weights up to the symmetries of the model"
MEAN, MAX = "mean", "max"
CHANCE = "#dddddd"
FURTHEST = 2.4
"""Relative squared differences beyond it stand at the edge."""
MAPS = {
    IDENTITY: Strip("as they are", map_colour("identity")),
    STREAM: Strip("R from activations", map_colour("similarity")),
    GAUGE: Strip("full gauge", map_colour("affine")),
}
CEILINGS = Strip("previous checkpoint (ceiling)", CEILING, "d", filled=False)
NULLS = {
    OWN_ROTATIONS: Strip("own rotations (control)", CONTROL_COLOURS["covariance_only"], "^", filled=False),
    UNTRAINED: Strip("untrained (control)", CONTROL_COLOURS["documents_permuted"], "s", filled=False),
}
OWN_SITE = Strip("R of the site", map_colour("orthogonal"))
LANE = 0.14


def plate(rows: pl.DataFrame, ladder: pl.DataFrame) -> Drawn:
    """Relative squared differences, losses between members, and what R from weights does to activations."""
    if _errors(rows, GAUGE).is_empty():
        return Missing(NAME, TITLE, "No two members were compared in their weights.")
    return Plate(NAME, TITLE, _caption(rows, ladder), draw(rows))


def draw(rows: pl.DataFrame) -> Figure:
    """Above, a row a group and the way between members; below, a row a site."""
    groups, sites = _groups(rows), sites_in_order(rows)
    heights = [0.46 * len(groups) + 0.4, 0.4 * max(len(sites), 1) + 0.4]
    with style():
        figure, ((errors, paths), (agreement, scores)) = grid(
            2, 2, sum(heights) + 1.6, sharex=False, sharey=False, gridspec_kw={"height_ratios": heights}
        )
        _listed(errors, [_words(group) for group in groups])
        _draw_errors(errors, groups, rows)
        _draw_paths(paths, rows)
        for axes in (agreement, scores):
            _listed(axes, sites)
        scores.set_yticklabels([])
        _draw_agreement(agreement, sites, rows)
        _draw_scores(scores, sites, rows)
        chance = Patch(color=CHANCE, label="a Haar-random R")
        handles: list[Line2D | Patch] = [
            one.handle for one in (*MAPS.values(), OWN_SITE, CEILINGS, *NULLS.values())
        ]
        figure.legend(handles=[*handles, chance], loc="outside upper left", ncols=3)
        return settle(figure)


def _listed(axes: Axes, names: Sequence[str]) -> None:
    """One row a name, the first at the top."""
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    for edge in range(1, len(names)):
        axes.axhline(edge - 0.5, color="#ececec", linewidth=0.8, zorder=0.5)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)


def _draw_errors(axes: Axes, groups: list[str], rows: pl.DataFrame) -> None:
    """Lanes from what should be large to what should be small: as they are, controls, aligned, the ceiling."""
    lanes = [(MAPS[IDENTITY], _errors(rows, IDENTITY))]
    lanes += [(strip, _errors(rows, GAUGE, "control", name)) for name, strip in NULLS.items()]
    lanes += [(MAPS[name], _errors(rows, name)) for name in (STREAM, GAUGE)]
    lanes += [(CEILINGS, _errors(rows, GAUGE, "ceiling"))]
    for place, (strip, own) in enumerate(lanes):
        offset = LANE * (place - (len(lanes) - 1) / 2)
        at = own.with_columns(site=pl.col("group"), value=pl.col("value").clip(upper_bound=FURTHEST))
        replace(strip, offset=offset, spread=0.03, reach=0.03, size=3.4).draw(axes, groups, at)
    axes.axvline(1, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    axes.axhline(len(groups) - 1.5, color="#9a9a9a", linewidth=0.9, zorder=0.9)
    axes.set_xlim(-0.06, FURTHEST + 0.06)
    axes.set_xlabel("relative squared difference")


def _draw_paths(axes: Axes, rows: pl.DataFrame) -> None:
    """A line a pair and map, with its interval; the ceiling as it is."""
    losses = rows.filter(metric="interpolated_loss").sort("source", "target", "source_step", "fraction")
    ways = [(losses.filter(role="estimate", map=name), strip.colour) for name, strip in MAPS.items()]
    ways.append((losses.filter(role="ceiling", map=IDENTITY), CEILING))
    for of_map, colour in ways:
        for _, way in of_map.group_by("source", "target", "source_step", maintain_order=True):
            axes.plot(way["fraction"], way["value"], color=colour, linewidth=1.3)
            known = way.drop_nulls(["low", "high"])
            axes.fill_between(known["fraction"], known["low"], known["high"], color=colour, alpha=0.07, lw=0)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the way between two members")
    axes.set_ylabel("loss, nats a token")


def _draw_agreement(axes: Axes, sites: list[str], rows: pl.DataFrame) -> None:
    found = rows.filter(metric="agreement_on_support")
    for row, site in enumerate(sites):
        law = found.filter(role="null", site=site)
        if law.height:
            low, high = float(law["low"].min()), float(law["high"].max())  # type: ignore[arg-type]
            axes.fill_betweenx([row - 0.4, row + 0.4], low, high, color=CHANCE, zorder=0.6)
    for place, name in enumerate((STREAM, GAUGE)):
        strip = replace(MAPS[name], offset=0.3 * (place - 0.5))
        strip.draw(axes, sites, found.filter(role="estimate", map=name))
    axes.set_xlim(min(-0.1, 1.15 * float(found["low"].min() or 0)), 1.04)  # type: ignore[arg-type]
    axes.set_xlabel("agreement with the site's own R")


def _draw_scores(axes: Axes, sites: list[str], rows: pl.DataFrame) -> None:
    found = rows.filter(metric="r2", role="estimate")
    for place, (name, strip) in enumerate(_score_strips()):
        own = replace(strip, offset=0.26 * (place - 1), floor=R2_FLOOR)
        own.draw(axes, sites, found.filter(map=name))
    r2_along(axes, float(found["value"].min() or 0))  # type: ignore[arg-type]
    axes.set_xlabel("R² on the eval split")


def _score_strips() -> list[tuple[str, Strip]]:
    return [(GAUGE, MAPS[GAUGE]), (STREAM, MAPS[STREAM]), (ORTHOGONAL, OWN_SITE)]


def _errors(
    rows: pl.DataFrame, name: str, role: str = "estimate", control: str | None = None
) -> pl.DataFrame:
    of = pl.col("control").eq_missing(control)
    return rows.filter(of, metric="relative_mse", role=role, map=name).sort("source", "target", "group")


def _groups(rows: pl.DataFrame) -> list[str]:
    """In the order of the weights' names, tables before and unembeddings after the layers; the mean last."""
    names = _errors(rows, GAUGE)["group"].unique().to_list()
    ordered = sorted(names, key=lambda name: (name.startswith("unembed"), name.startswith("blocks"), name))
    inner = [name for name in ordered if name not in (MEAN, MAX)]
    layers = [name for name in inner if name.startswith("blocks")]
    tables = [name for name in inner if not name.startswith(("blocks", "unembed"))]
    rest = [name for name in inner if name.startswith("unembed")]
    return [*tables, *layers, *rest, MEAN]


def _words(group: str) -> str:
    return "mean over groups" if group == MEAN else group


def _barrier(rows: pl.DataFrame, name: str, role: str = "estimate", control: str | None = None) -> str:
    of = pl.col("control").eq_missing(control)
    return spread(rows.filter(of, metric="loss_barrier", role=role, map=name)["value"], 2)


def _caption(rows: pl.DataFrame, ladder: pl.DataFrame) -> str:
    similarity = measured(rows, "weight_similarity").filter(pl.col("start").is_null())["value"]
    nulls = rows.filter(pl.col("control").is_in(list(NULLS)), metric="weight_similarity")["value"]
    pairs, members = rows.filter(role="estimate", metric="loss_barrier", map=GAUGE), _copies(rows)
    documents = pairs["n_documents"].unique().to_list()
    sentences = [
        "Above left, ‖source − target‖² / ‖target‖² of what no symmetry inside a layer changes, by group of folded "
        "weights: tables and unembeddings in the rows that occur in the probe, W_Q W_Kᵀ (qk) and W_V W_O (vo) of "
        "heads, and scaled neurons. One dot a pair, the source as it is, aligned with R from the activations of all "
        "sites, and aligned over the full gauge; 1 is a source of zeros, 2 unrelated weights, and beyond "
        f"{FURTHEST:g} a dot stands at the edge.",
        f"The mean cosine over groups is {spread(similarity)} (median [least, largest]) from the best of "
        f"{RESTARTS} random starts and three others; between models without a stream in common {spread(nulls)}, from "
        f"{RESTARTS_OF_NULLS} random starts and two others.",
        *members,
        "Above right, the loss of models between source and target, with the highest above the straight line (the "
        f"barrier) {_barrier(rows, IDENTITY)} nats as they are, {_barrier(rows, STREAM)} with R from activations, "
        f"{_barrier(rows, GAUGE)} over the full gauge, and {_barrier(rows, IDENTITY, 'ceiling')} to a member's "
        "own previous checkpoint.",
        "Below left, whether R from weights, and one R from the activations of all sites, do what the site's own R "
        "does to its determined directions: 1 for the same, grey for a random rotation. Below right, R² of the three.",
        f"Data: {study_behind(rows, ladder, ('fit', 'eval'))} Losses: "
        f"{', '.join(counted(n, 'document') for n in documents)} of the eval split.",
        "Whiskers and bands are 95 % intervals by a jackknife over documents: of losses and R² with the models held "
        "fixed, of agreements by refitting the site's R. Weights have none. Pairs share seeds: dots are not "
        "independent.",
    ]
    return " ".join(sentences)


def _copies(rows: pl.DataFrame) -> list[str]:
    """What became of copies under random elements of the gauge."""
    of_copies = rows.filter(control=COPY, map=GAUGE)
    worst = of_copies.filter(metric="mse", group=MAX)["value"].max()
    logits = of_copies.filter(metric="logit_difference")["value"].max()
    if worst is None or logits is None:
        return []
    n = of_copies.filter(metric="logit_difference").height
    barrier = _barrier(rows, IDENTITY, "ceiling", COPY)
    return [
        f"{counted(n, 'member')} under a random element of the gauge: found again to a mean squared difference of "
        f"{float(worst):.0e} and logits within {float(logits):.0e} at most; as they are, the barrier to these copies, "  # type: ignore[arg-type]
        f"which are the same function, is {barrier} nats."
    ]
