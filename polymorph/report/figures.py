"""The figures of a report, one a file: each takes tables and gives a `Plate`, or says why it cannot."""

from collections.abc import Callable, Iterator

import polars as pl

from polymorph.plotting.plate import Drawn
from polymorph.plotting.table_rows import HISTORY, at_last_steps, completed
from polymorph.report import training_curves
from polymorph.report.data import ReportData, angles_of, ladder_of
from polymorph.studies.angles import figure as eigenvalue_angles
from polymorph.studies.bars import figure as bars
from polymorph.studies.checkpoint_transfer import figure as checkpoint_transfer
from polymorph.studies.components import figure as components
from polymorph.studies.cycles import figure as cycles
from polymorph.studies.dictionary_match import figure as dictionary_match
from polymorph.studies.equivalence import figure as equivalence
from polymorph.studies.firing import figure as firing
from polymorph.studies.haar import figure as haar
from polymorph.studies.isometry import figure as isometry
from polymorph.studies.ladder import frobenius_trajectory, r2_by_site, r2_trajectory
from polymorph.studies.layers import figure as layers
from polymorph.studies.loss_by_position import figure as loss_by_position
from polymorph.studies.massive_activations import figure as massive_activations
from polymorph.studies.pairing import figure as pairing
from polymorph.studies.registry import schema_of
from polymorph.studies.sae_transfer import figure as sae_transfer
from polymorph.studies.sae_transfer import splicing as sae_splicing
from polymorph.studies.sample_efficiency import figure as sample_efficiency
from polymorph.studies.steering import figure as steering
from polymorph.studies.stitching import figure as stitching
from polymorph.studies.support import figure as support
from polymorph.studies.support import principal_components
from polymorph.studies.trajectory import figure as trajectory
from polymorph.studies.weights import figure as weights

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
