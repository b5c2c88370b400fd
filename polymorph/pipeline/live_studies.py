"""What a checkpoint is worth beside the ladder: a pairing test, and steering regimes, in brief, pair by pair.

Computed once by whoever comes second, like the ladder, and kept with the rows of the pair. Studies of the last
checkpoint are made on more: of two numbers with one name, theirs is the one to report.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from polymorph.errors import RequestError, RunError
from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row
from polymorph.models.activations import Activations, Split
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.rows_version import rows_version
from polymorph.steering.request import Steering
from polymorph.store import digest
from polymorph.studies.pairing.rows import study_rows as pairing_rows
from polymorph.studies.steering.rows import study_rows as steering_rows

PAIRING_DOCUMENTS = 16
"""Of the fit split: a few hundred tokens show a relation that there is long before training ends."""
PAIRING_COMPONENTS = 16
"""Of each member, a quarter of what the study takes, for a sixteenth of its cost."""
DOSE = 1.0


@dataclass(frozen=True)
class Two:
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


Made = Callable[[PairLabel], list[Row]]
"""The rows of one pair; it may raise where the pair cannot bear the study."""


def _pairing(comparison: Comparison, pairs: Sequence[PairLabel]) -> Made:
    """p of each pair at every site; that of all pairs together is left to whoever has all pairs.

    Members are read once for all pairs, and every pair is tested by itself: its rows do not depend on the others.
    """
    ends = sorted({end for pair in pairs for end in pair.ends})
    few = comparison.source(ends, PAIRING_DOCUMENTS)
    read: dict[Split, Sequence[Activations]] = {"fit": list(few.chunks("fit"))}

    def made(pair: PairLabel) -> list[Row]:
        first, second = (ends.index(end) for end in pair.ends)
        source = Two(read, few.sites, (first, second))
        evidence = Evidence(comparison.cohort.name, pair.ends, [pair], source, comparison.probe.seed)
        return [row for row in pairing_rows(evidence, PAIRING_COMPONENTS) if row.source is not None]

    return made


def _steering(comparison: Comparison, pairs: Sequence[PairLabel]) -> Made:
    def made(pair: PairLabel) -> list[Row]:
        evidence = replace(comparison.evidence(pair.ends, [pair]), histories=())
        return list(
            steering_rows(replace(evidence, options={"steering": Steering(doses=(DOSE,), brief=True)}))
        )

    return made


STUDIES: Mapping[str, Callable[[Comparison, Sequence[PairLabel]], Made]] = {
    "pairing": _pairing,
    "steering": _steering,
}


@dataclass
class LiveStudies:
    """The brief studies of the pairs of one cohort."""

    comparison: Comparison

    def rows(self, name: str, pairs: Iterable[PairLabel]) -> list[Row]:
        """Of a study, computing and publishing what is missing; a pair that cannot bear it has no rows."""
        asked = {pair: self.comparison.stored(self._key(name, pair), pair, name) for pair in _of_two(pairs)}
        if missing := [pair for pair, own in asked.items() if own is None]:
            made = STUDIES[name](self.comparison, missing)
            for pair in missing:
                asked[pair] = self._computed(name, made, pair)
                self.comparison.store(self._key(name, pair), pair, asked[pair] or [], name)
        return [row for own in asked.values() for row in own or ()]

    def stored(self, pairs: Iterable[PairLabel]) -> list[Row]:
        """What is there of these pairs, of all studies."""
        found = [
            self.comparison.stored(self._key(name, pair), pair, name)
            for pair in _of_two(pairs)
            for name in STUDIES
        ]
        return [row for rows in found for row in rows or ()]

    def _computed(self, name: str, made: Made, pair: PairLabel) -> list[Row]:
        try:
            return made(pair)
        except (RequestError, RunError, ValueError) as error:
            self.comparison.say(f"not made at step {pair.target_step}: {name}: {error}")
            return []

    def _key(self, name: str, pair: PairLabel) -> str:
        options = {"study": f"{name} live", "version": rows_version(name), "documents": PAIRING_DOCUMENTS}
        options |= {"components": PAIRING_COMPONENTS, "dose": DOSE}
        return digest({"pair": self.comparison.key(pair), **options})


def _of_two(pairs: Iterable[PairLabel]) -> Sequence[PairLabel]:
    """Without the ceilings."""
    return [pair for pair in pairs if pair.role == "estimate"]
