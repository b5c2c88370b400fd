"""Every study by its name: its question, its rows, and its further key columns. A new study is one file and one
line here."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from polymorph.errors import RunError
from polymorph.evidence import dictionaries
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.rows import COLUMNS, Row, table
from polymorph.progress import SILENT, Progress
from polymorph.studies.angles import rows as angles
from polymorph.studies.bars import rows as bars
from polymorph.studies.checkpoint_transfer import rows as checkpoint_transfer
from polymorph.studies.components import rows as components
from polymorph.studies.cycles import rows as cycles
from polymorph.studies.dictionary_match import rows as dictionary_match
from polymorph.studies.equivalence import rows as equivalence
from polymorph.studies.firing import rows as firing
from polymorph.studies.haar import rows as haar
from polymorph.studies.isometry import rows as isometry
from polymorph.studies.ladder import rows as ladder
from polymorph.studies.layers import rows as layers
from polymorph.studies.loss_by_position import rows as loss_by_position
from polymorph.studies.massive_activations import rows as massive_activations
from polymorph.studies.pairing import rows as pairing
from polymorph.studies.sae_transfer import rows as sae_transfer
from polymorph.studies.sample_efficiency import rows as sample_efficiency
from polymorph.studies.steering import rows as steering
from polymorph.studies.stitching import rows as stitching
from polymorph.studies.support import rows as support
from polymorph.studies.trajectory import rows as trajectory
from polymorph.studies.weights import rows as weights

Columns = Mapping[str, type[pl.DataType]]
Scope = Literal["pairs", "site", "all"]
MEMORY_GIB = 8.0


def _always(evidence: Evidence) -> bool:
    return True


@dataclass(frozen=True)
class Study:
    """`rows` reads the evidence of one comparison of members; `applies` says whether it can be asked there."""

    question: str
    rows: Callable[[Evidence], Iterator[Row]]
    columns: Columns = field(default_factory=dict)
    applies: Callable[[Evidence], bool] = _always
    needs: str = ""
    """What is lacking where it does not apply."""
    scope: Scope = "site"
    """How much it must see at once, because memory is bounded: some pairs of a site, all of a site, or all."""

    @property
    def needs_saes(self) -> bool:
        """Whether it has nothing to say without SAEs; others may say more with them."""
        return "sae" in self.columns and self.applies is not _always


STUDIES: dict[str, Study] = {
    "pairing": Study("Are the members related at all?", pairing.pairing_rows, pairing.EXTRA_COLUMNS),
    "loss_by_position": Study(
        "How well does each member say its labels, by how much of the document it has read?",
        loss_by_position.loss_by_position_rows,
        loss_by_position.EXTRA_COLUMNS,
        loss_by_position.applies,
        "members that say labels",
        scope="all",
    ),
    "equivalence": Study(
        "Do the members compute the same function?",
        equivalence.equivalence_rows,
        equivalence.EXTRA_COLUMNS,
        equivalence.applies,
        "members that are models",
        scope="all",
    ),
    "stitching": Study(
        "Can the upper part of one member read the lower part of another through a map?",
        stitching.stitching_rows,
        stitching.EXTRA_COLUMNS,
        stitching.applies,
        "members that are models",
        scope="pairs",
    ),
    "massive_activations": Study(
        "Do a few dimensions carry the residual stream, and the numbers of the other studies with it?",
        massive_activations.massive_activation_rows,
        massive_activations.EXTRA_COLUMNS,
        scope="pairs",
    ),
    "steering": Study(
        "Do steering vectors of one member work on another, and through which map?",
        steering.steering_rows,
        steering.EXTRA_COLUMNS,
        steering.applies,
        "members that are models",
        scope="all",
    ),
    "isometry": Study("Is an isometry possible?", isometry.isometry_rows, scope="pairs"),
    "ladder": Study(
        "How far does each family of maps go?", ladder.ladder_of, ladder.EXTRA_COLUMNS, scope="pairs"
    ),
    "support": Study(
        "Which part of R do the data determine?",
        support.support_rows,
        support.EXTRA_COLUMNS,
        scope="pairs",
    ),
    "haar": Study("Is R like a uniformly random rotation?", haar.haar_rows, haar.EXTRA_COLUMNS),
    "cycles": Study(
        "Do the maps agree round a cycle?",
        cycles.cycle_rows,
        cycles.EXTRA_COLUMNS,
        cycles.applies,
        "at least three members and all their pairs (pairs=all)",
    ),
    "layers": Study(
        "Is the right layer the best one?",
        layers.layer_rows,
        layers.EXTRA_COLUMNS,
        layers.applies,
        "more than one site",
        scope="all",
    ),
    "trajectory": Study(
        "How do members turn while they train?",
        trajectory.trajectory_rows,
        trajectory.EXTRA_COLUMNS,
        trajectory.applies,
        "a member with at least two checkpoints",
        scope="all",
    ),
    "sample_efficiency": Study(
        "How many tokens does a fit need?",
        sample_efficiency.sample_efficiency_rows,
        sample_efficiency.EXTRA_COLUMNS,
        scope="pairs",
    ),
    "weights": Study(
        "Are two members one model up to the symmetries of their architecture?",
        weights.weight_rows,
        weights.EXTRA_COLUMNS,
        weights.applies,
        "models of an architecture with a table of symmetries (polymorph/models/symmetries.py)",
        scope="all",
    ),
    "angles": Study("By which angles does R turn?", angles.angles_of, angles.EXTRA_COLUMNS, scope="pairs"),
    "components": Study(
        "Do the same parts matter in every member, and can that be predicted?",
        components.component_rows,
        components.EXTRA_COLUMNS,
        components.applies,
        "members that are models",
        scope="all",
    ),
    "bars": Study(
        "Which of the paper's four bars does the cohort pass, and which would a decoy pass too?",
        bars.bar_rows,
        bars.EXTRA_COLUMNS,
        bars.applies,
        "members that are models",
        scope="all",
    ),
    "dictionary_match": Study(
        "Do the SAEs of two members have the same features?",
        dictionary_match.dictionary_match_rows,
        dictionary_match.EXTRA_COLUMNS,
        dictionary_match.applies,
        "SAEs of two members, or two of one, at these checkpoints (python train.py stage=sae)",
    ),
    "firing": Study(
        "Does an SAE fire on another member as on its own?",
        firing.firing_rows,
        dictionaries.EXTRA_COLUMNS,
        firing.applies,
        "an SAE of a member at its checkpoint (python train.py stage=sae)",
    ),
    "sae_transfer": Study(
        "Does the SAE of one member explain another?",
        sae_transfer.sae_transfer_rows,
        dictionaries.EXTRA_COLUMNS,
        sae_transfer.applies,
        "an SAE of a member at its checkpoint (python train.py stage=sae)",
        scope="pairs",
    ),
    "checkpoint_transfer": Study(
        "Does the SAE of one checkpoint explain another?",
        checkpoint_transfer.checkpoint_transfer_rows,
        dictionaries.EXTRA_COLUMNS,
        checkpoint_transfer.applies,
        "SAEs of one member at two of its checkpoints (python train.py stage=sae)",
        scope="all",
    ),
}


def schema_of(study: str) -> Columns:
    """The columns of a study's table."""
    return COLUMNS | dict(STUDIES[study].columns)


def study_tables(
    evidence: Evidence, names: Sequence[str], memory_gib: float = MEMORY_GIB, progress: Progress = SILENT
) -> tuple[dict[str, pl.DataFrame], list[tuple[str, str]]]:
    """The table of every named study, and those that could not be made, with the reason.

    A study that cannot bear its evidence (too few tokens or documents, no variance) is refused, not the others.
    Moments are held for as many sites at a time as the memory allows.
    """
    rows: dict[str, list[Row]] = {name: [] for name in names if STUDIES[name].applies(evidence)}
    refused = {name: f"it needs {STUDIES[name].needs}" for name in names if name not in rows}
    parts = [(evidence, [name for name in rows if STUDIES[name].scope == "all"])]
    narrow = [name for name in rows if STUDIES[name].scope != "all"]
    with progress.bar("studies", len(rows) * len(evidence.sites)) as bar:
        done = 0
        for part, asked in itertools.chain(((site, narrow) for site in evidence.by_sites(memory_gib)), parts):
            for name in asked:
                bar.update(done, now=name)
                done += len(part.sites)
                if name not in refused:
                    try:
                        rows[name] += _rows(STUDIES[name], part)
                    except (ValueError, RunError) as error:
                        refused[name] = str(error)
    tables = {name: table(own, STUDIES[name].columns) for name, own in rows.items() if name not in refused}
    return tables, [(f"study {name}", reason) for name, reason in refused.items()]


def _rows(study: Study, evidence: Evidence) -> list[Row]:
    parts = evidence.by_pairs() if study.scope == "pairs" else [evidence]
    return [row for part in parts for row in study.rows(part)]
