"""What a checkpoint is worth beside the ladder: a pairing test, and steering regimes, in brief, pair by pair.

Computed once by whoever comes second, like the ladder, and kept with the rows of the pair. Studies of the last
checkpoint are made on more: of two numbers with one name, theirs is the one to report.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from polymorph.cohort import digest
from polymorph.comparison import Comparison
from polymorph.errors import RequestError, RunError
from polymorph.steering.request import Steering
from polymorph.studies.evidence import Evidence
from polymorph.studies.pairing import pairing_rows
from polymorph.studies.pairs import PairLabel
from polymorph.studies.rows import Row
from polymorph.studies.steering import steering_rows

VERSION = 1
PAIRING_DOCUMENTS = 16
"""Of the fit split: a few hundred tokens show a relation that there is long before training ends."""
DOSE = 1.0


def _pairing(comparison: Comparison, evidence: Evidence) -> Iterator[Row]:
    """p of the pair at every site; that of all pairs together is left to whoever has all pairs."""
    few = comparison.source(evidence.ends, PAIRING_DOCUMENTS)
    yield from (row for row in pairing_rows(replace(evidence, source=few)) if row.source is not None)


def _steering(comparison: Comparison, evidence: Evidence) -> Iterator[Row]:
    brief = Steering(doses=(DOSE,), brief=True)
    yield from steering_rows(replace(evidence, steering=brief))


STUDIES: Mapping[str, Callable[[Comparison, Evidence], Iterator[Row]]] = {
    "pairing": _pairing,
    "steering": _steering,
}


@dataclass
class LiveStudies:
    """The brief studies of the pairs of one cohort."""

    comparison: Comparison

    def rows(self, name: str, pairs: Iterable[PairLabel]) -> list[Row]:
        """Of a study, computing and publishing what is missing; a pair that cannot bear it has no rows."""
        rows: list[Row] = []
        for pair in _of_two(pairs):
            key = self._key(name, pair)
            own = self.comparison.stored(key, pair, name)
            if own is None:
                own = self._computed(name, pair)
                self.comparison.store(key, pair, own, name)
            rows += own
        return rows

    def stored(self, pairs: Iterable[PairLabel]) -> list[Row]:
        """What is there of these pairs, of all studies."""
        found = [
            self.comparison.stored(self._key(name, pair), pair, name)
            for pair in _of_two(pairs)
            for name in STUDIES
        ]
        return [row for rows in found for row in rows or ()]

    def _computed(self, name: str, pair: PairLabel) -> list[Row]:
        evidence = replace(self.comparison.evidence(pair.ends, [pair]), histories=())
        try:
            return list(STUDIES[name](self.comparison, evidence))
        except (RequestError, RunError, ValueError) as error:
            self.comparison.say(f"not made at step {pair.target_step}: {name}: {error}")
            return []

    def _key(self, name: str, pair: PairLabel) -> str:
        options = {"study": f"{name} live", "version": VERSION, "documents": PAIRING_DOCUMENTS, "dose": DOSE}
        return digest({"pair": self.comparison.key(pair), **options})


def _of_two(pairs: Iterable[PairLabel]) -> Sequence[PairLabel]:
    """Without the ceilings."""
    return [pair for pair in pairs if pair.role == "estimate"]
