"""What is made pair by pair at every checkpoint: the ladder, and beside it a pairing test and steering, in brief.

The brief ones have names of their own, which end in `_live`: studies of the last checkpoint are made on more, and of
two numbers theirs is the one to report.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from polymorph.alignment.accumulator import moment_bytes
from polymorph.errors import RequestError, RunError
from polymorph.evidence.evidence import BLOCKS, Evidence
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import LIVE, Row
from polymorph.models.activations import Activations, Split
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.pair_cache import PairRows, PairStudy
from polymorph.pipeline.rows_version import rows_version
from polymorph.steering.request import Steering
from polymorph.studies.ladder.rows import ladder_rows
from polymorph.studies.pairing.rows import study_rows as pairing_rows
from polymorph.studies.steering.rows import study_rows as steering_rows

PAIRING_DOCUMENTS = 16
"""Of the fit split: a few hundred tokens show a relation that there is long before training ends."""
PAIRING_COMPONENTS = 16
"""Of each member, a quarter of what the study takes, for a sixteenth of its cost."""
DOSE = 1.0
BRIEF = Steering(doses=(DOSE,), brief=True)
PairEvidence = Callable[[PairLabel], Evidence]


class Ladder:
    """Which maps relate two members; of every pair, that of a member and its own earlier checkpoint too."""

    name = "ladder"
    folder = None

    def identity(self, comparison: Comparison, pair: PairLabel) -> Mapping[str, Any]:
        return {"version": rows_version(self.name)}

    def rows(self, comparison: Comparison, pairs: Sequence[PairLabel]) -> PairRows:
        """Some pairs at a time, as many as their moments fit into the memory."""
        at_once = _pairs_at_once(comparison)
        documents = {"fit_documents": comparison.probe.fit, "eval_documents": comparison.probe.eval}
        with comparison.progress.bar("pairs", len(pairs)) as bar:
            for first in range(0, len(pairs), at_once):
                some = pairs[first : first + at_once]
                moments = comparison.moments(some).result()
                rows = ladder_rows(moments, some, comparison.cohort.name, **documents)
                for pair in some:
                    yield pair, [row for row in rows if _is_about(row, pair)]
                bar.update(first + at_once)


@dataclass(frozen=True)
class Brief:
    """A study of two members by themselves, on less than the study takes: its rows do not depend on other pairs."""

    study: str
    less: Mapping[str, Any]
    """What it takes, as far as that decides its rows."""
    opened: Callable[[Comparison, Sequence[PairLabel]], PairEvidence]
    made: Callable[[Evidence], Iterator[Row]]

    @property
    def name(self) -> str:
        return f"{self.study}{LIVE}"

    @property
    def folder(self) -> str:
        return self.study

    def identity(self, comparison: Comparison, pair: PairLabel) -> Mapping[str, Any] | None:
        """Ceilings have none."""
        return {"version": rows_version(self.study), **self.less} if pair.role == "estimate" else None

    def rows(self, comparison: Comparison, pairs: Sequence[PairLabel]) -> PairRows:
        evidence = self.opened(comparison, pairs)
        for pair in pairs:
            try:
                yield pair, [row.of_study(self.name) for row in self.made(evidence(pair))]
            except (RequestError, RunError, ValueError) as error:
                comparison.say(f"not made at step {pair.target_step}: {self.study}: {error}")
                yield pair, []


@dataclass(frozen=True)
class TwoMembers:
    """Two of the members that were read together, as a source of their own."""

    read: Mapping[Split, Sequence[Activations]]
    sites: Sequence[str]
    members: tuple[int, int]

    @property
    def documents(self) -> Mapping[Split, int]:
        return {split: sum(len(one.document.unique()) for one in own) for split, own in self.read.items()}

    def chunks(self, split: Split) -> Iterator[Activations]:
        for one in self.read[split]:
            yield replace(one, values={site: own[list(self.members)] for site, own in one.values.items()})


def _read_once(comparison: Comparison, pairs: Sequence[PairLabel]) -> PairEvidence:
    """Members are read once for all pairs."""
    ends = sorted({end for pair in pairs for end in pair.ends})
    few = comparison.source(ends, PAIRING_DOCUMENTS)
    read: dict[Split, Sequence[Activations]] = {"fit": list(few.chunks("fit"))}

    def evidence(pair: PairLabel) -> Evidence:
        first, second = (ends.index(end) for end in pair.ends)
        source = TwoMembers(read, few.sites, (first, second))
        return Evidence(comparison.cohort.name, pair.ends, [pair], source, comparison.probe.seed)

    return evidence


def _pairing(evidence: Evidence) -> Iterator[Row]:
    """p at every site; that of all pairs together is left to whoever has all pairs."""
    return (row for row in pairing_rows(evidence, PAIRING_COMPONENTS) if row.source is not None)


def _opened(comparison: Comparison, pairs: Sequence[PairLabel]) -> PairEvidence:
    return lambda pair: replace(
        comparison.evidence(pair.ends, [pair]), histories=(), options={"steering": BRIEF}
    )


LADDER: PairStudy = Ladder()
BRIEF_STUDIES: Mapping[str, Brief] = {
    study.study: study
    for study in (
        Brief(
            "pairing",
            {"documents": PAIRING_DOCUMENTS, "components": PAIRING_COMPONENTS},
            _read_once,
            _pairing,
        ),
        Brief("steering", BRIEF.identity(), _opened, steering_rows),
    )
}


def _pairs_at_once(comparison: Comparison) -> int:
    """As many pairs as their moments fit into the memory, each with two members of its own."""
    d = comparison.d
    pair = len(comparison.sites) * 2 * (moment_bytes(2, 1, d, BLOCKS) + moment_bytes(4, 1, d, 1))
    return max(1, int(comparison.memory_gib * 2**30 / pair))


def _is_about(row: Row, pair: PairLabel) -> bool:
    ends = {(row.source, row.source_step), (row.target, row.target_step)}
    return ends == set(pair.ends)
