"""The figures of a report, one a file: each takes tables and gives a `Plate`, or says why it cannot."""

from collections.abc import Callable, Iterator

import polars as pl

from polymorph.report.data import ReportData
from polymorph.report.figures import (
    bars,
    checkpoint_transfer,
    components,
    cycles,
    dictionary_match,
    eigenvalue_angles,
    equivalence,
    firing,
    frobenius_trajectory,
    haar,
    isometry,
    layers,
    loss_by_position,
    massive_activations,
    pairing,
    principal_components,
    r2_by_site,
    r2_trajectory,
    sae_splicing,
    sae_transfer,
    sample_efficiency,
    steering,
    stitching,
    support,
    training_curves,
    trajectory,
    weights,
)
from polymorph.report.plate import Drawn
from polymorph.report.reading import HISTORY, angles_of, at_last_steps, completed, ladder_of, schema_of

Draw = Callable[[pl.DataFrame, pl.DataFrame], Drawn]

BEFORE: tuple[tuple[str, Draw], ...] = (
    ("equivalence", equivalence.plate),
    ("loss_by_position", loss_by_position.plate),
    ("pairing", pairing.plate),
    ("massive_activations", massive_activations.plate),
    ("isometry", isometry.plate),
)
AFTER: tuple[tuple[str, Draw], ...] = (
    ("support", support.plate),
    ("support", principal_components.plate),
    ("haar", haar.plate),
    ("cycles", cycles.plate),
    ("layers", layers.plate),
    ("sample_efficiency", sample_efficiency.plate),
    ("trajectory", trajectory.plate),
    ("weights", weights.plate),
    ("stitching", stitching.plate),
    ("steering", steering.plate),
    ("components", components.plate),
    ("bars", bars.plate),
    ("sae_transfer", sae_transfer.plate),
    ("sae_transfer", sae_splicing.plate),
    ("dictionary_match", dictionary_match.plate),
    ("firing", firing.plate),
    ("checkpoint_transfer", checkpoint_transfer.plate),
)
"""Study and figure, in the order of the page: before the figures of the ladder, and after them."""


def draw_all(report: ReportData) -> tuple[Drawn, ...]:
    """Every figure in the order of the page; what cannot be drawn is `Missing`, with its reason.

    A study that was not made has no figure, and members that were not trained have none of their training.
    """
    ladder = ladder_of(report)
    drawn: list[Drawn] = []
    if report.trained:
        drawn.append(training_curves.plate(completed(report.history, HISTORY)))
    drawn += [*_studies(report, BEFORE, ladder), r2_by_site.plate(ladder)]
    if report.trained:
        drawn += [r2_trajectory.plate(ladder), frobenius_trajectory.plate(ladder)]
    if not report.tables or "angles" in report.tables:
        drawn.append(eigenvalue_angles.plate(angles_of(report), ladder))
    return (*drawn, *_studies(report, AFTER, ladder))


def _studies(
    report: ReportData, figures: tuple[tuple[str, Draw], ...], ladder: pl.DataFrame
) -> Iterator[Drawn]:
    """Those whose table is there; `ladder` lends its counts at the last steps."""
    last = at_last_steps(ladder)
    for study, plate in figures:
        if study in report.tables:
            yield plate(completed(report.tables[study], schema_of(study)), last)
