"""Can the upper part of one member read the lower part of another through a map?"""

import polars as pl

from polymorph.evidence.rows import sites_in_order
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import (
    NO_CEILING,
    across,
    at,
    by_site,
    cell,
    joined,
    middle,
    nothing,
    shortened,
    told,
)
from polymorph.plotting.table_rows import at_site
from polymorph.studies.sae_transfer.figure import Series, through, unpaired
from polymorph.studies.stitching.figure import LOSS, PREVIOUS, UNTRAINED, of_head
from polymorph.studies.study import Tables

STUDY = "stitching"
R, AFFINE, AS_IT_IS = through("orthogonal"), through("affine"), through("identity")
NAIVE, PERMUTED = unpaired("covariance_only", "orthogonal"), unpaired("documents_permuted", "orthogonal")
_NOISE = 5e-4
"""Nats a token, below which no loss is told from none."""


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """Loss above the target's at the best and at the worst site of R, and where an untrained part does as well."""
    shown = rows if rows["head"].drop_nulls().is_empty() else of_head(rows)
    if _lost(shown, R).is_empty() and _lost(shown, AFFINE).is_empty():
        return nothing("No two members were stitched together, so what it costs is not known.")
    sites = sites_in_order(shown.filter(pl.col("metric") == LOSS))
    series = (AS_IT_IS, R, AFFINE, UNTRAINED, PREVIOUS)
    lines = [(site, *(cell(_lost(at_site(shown, site), one), nats) for one in series)) for site in sites]
    columns = ("site: nats lost", "as it is", "through R", "affine", "untrained, affine", "ceiling")
    lacking = [] if _lost(shown, PREVIOUS).height else [NO_CEILING]
    lacking += (
        []
        if _lost(shown, UNTRAINED).height
        else ["No checkpoint is from before training, so that control is missing."]
    )
    return Answer(joined([_ends(shown), _reached(shown), *lacking]), columns, shortened(lines))


def nats(value: float) -> str:
    """As `told`; 0 where no loss can be told from none."""
    return "0" if abs(value) < _NOISE else told(value)


def _lost(rows: pl.DataFrame, series: Series) -> pl.DataFrame:
    return series.of(rows, LOSS, None)


def _ends(shown: pl.DataFrame) -> str:
    values = by_site(_lost(shown, R)) or by_site(_lost(shown, AFFINE))
    best, worst = min(values, key=lambda site: values[site]), max(values, key=lambda site: values[site])
    here, there = at_site(shown, best), at_site(shown, worst)
    text = (
        f"At {best} the upper part of one member reads another's lower part through R (orthogonal) with "
        f"{across(_lost(here, R), nats)} nats a token lost, through an affine map "
        f"{middle(_lost(here, AFFINE), nats)}, as it is "
        f"{middle(_lost(here, AS_IT_IS), nats)}{_beside(here)}."
    )
    if worst == best:
        return text
    return (
        f"{text} R is worst at {worst}: {across(_lost(there, R), nats)}, affine "
        f"{middle(_lost(there, AFFINE), nats)}{_beside(there)}."
    )


def _beside(here: pl.DataFrame) -> str:
    parts = (
        ("the target's own previous checkpoint (ceiling)", PREVIOUS),
        ("an untrained lower part, affine,", UNTRAINED),
    )
    told_of = [f"{name} {middle(some, nats)}" for name, one in parts if (some := _lost(here, one)).height]
    return f"; {', '.join(told_of)}" if told_of else ""


def _reached(shown: pl.DataFrame) -> str:
    """Where a control loses no more than a pair of trained members does through the same family of maps."""
    sites, told_of = sites_in_order(shown), []
    for estimate, control, what in (
        (AFFINE, UNTRAINED, "an untrained lower part does as well through the affine map"),
        (R, PERMUTED, "R fitted on documents paired at random does as well"),
        (R, NAIVE, "a map that only matches covariances does as well as R"),
    ):
        found = [
            site
            for site in sites
            if _overlap(at_site(_lost(shown, control), site), at_site(_lost(shown, estimate), site))
        ]
        told_of += [f"{what} {at(found, sites)}"] if found else []
    start = "That is no evidence of a shared computation where a control reaches it"
    return f"{start}: {'; '.join(told_of)}." if told_of else ""


def _overlap(control: pl.DataFrame, estimate: pl.DataFrame) -> bool:
    """Whether the best of the control is no worse than the worst of the estimate, up to noise."""
    if control.is_empty() or estimate.is_empty():
        return False
    return float(control["value"].min()) <= float(estimate["value"].max()) + _NOISE  # type: ignore[arg-type]
