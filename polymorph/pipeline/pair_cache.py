"""Rows of pairs in a cohort's folder: computed once, by whoever comes second, and read by everybody after.

One cache holds all that is made pair by pair: the ladder, and the brief studies that accompany training. Each study
says what decides its rows beside the pair, and that is its part of the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from polymorph.evidence.pairs import PairLabel
from polymorph.evidence.rows import Row
from polymorph.store import CorruptError, digest

if TYPE_CHECKING:
    from polymorph.pipeline.comparison import Comparison

PairRows = Iterator[tuple[PairLabel, Sequence[Row]]]


class PairStudy(Protocol):
    """A study whose rows are made pair by pair."""

    @property
    def name(self) -> str:
        """In its rows."""
        ...

    @property
    def folder(self) -> str | None:
        """What its rows lie under beside the names of the members; None for the ladder, which came first."""
        ...

    def identity(self, comparison: Comparison, pair: PairLabel) -> Mapping[str, Any] | None:
        """What decides its rows beside the pair; None where the pair cannot have any."""
        ...

    def rows(self, comparison: Comparison, pairs: Sequence[PairLabel]) -> PairRows:
        """Of every pair, in any order; a pair that cannot bear the study has none, which is said."""
        ...


@dataclass
class Found:
    """Rows of pairs, why pairs were left out, and how many had to be computed."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    computed: int = 0


@dataclass(frozen=True)
class PairCache:
    """The rows of the pairs of one cohort."""

    comparison: Comparison

    def key(self, study: PairStudy, pair: PairLabel) -> str | None:
        """SHA-256 of all that decides the rows; None where there are none. `CorruptError` if an end is damaged."""
        own = study.identity(self.comparison, pair)
        if own is None:
            return None
        return digest({"pair": self.comparison.key(pair), "study": study.name, **own})

    def rows(self, study: PairStudy, pairs: Iterable[PairLabel]) -> Found:
        """Rows of the pairs; those that are missing are computed and published."""
        found, missing = Found(), dict[PairLabel, str]()
        for pair in pairs:
            try:
                if (key := self.key(study, pair)) is None:
                    continue
            except CorruptError as error:
                found.left_out.append(f"{label(pair)} at step {pair.target_step}: {error}")
                continue
            if (there := self._read(study, pair, key)) is None:
                missing[pair] = key
            else:
                found.rows += there
        found.computed = len(missing)
        if missing:
            for pair, rows in study.rows(self.comparison, list(missing)):
                self._store(study, pair, missing[pair], rows)
                found.rows += rows
        return found

    def stored(self, study: PairStudy, pairs: Iterable[PairLabel]) -> list[Row]:
        """What is there of readable pairs; nothing is computed."""
        keys = {pair: self.key(study, pair) for pair in pairs}
        found = [self._read(study, pair, key) for pair, key in keys.items() if key is not None]
        return [row for rows in found for row in rows or ()]

    def _read(self, study: PairStudy, pair: PairLabel, key: str) -> list[Row] | None:
        """None if there are none; damaged ones are removed, which is said."""
        cohort, place = self.comparison.cohort, label(pair, study.folder)
        try:
            rows = cohort.pairs.read(key, place)
        except CorruptError as error:
            self.comparison.say(f"computed again: {error}")
            cohort.pairs.discard(key, place)
            return None
        return None if rows is None else [Row.from_dict(row) for row in rows]

    def _store(self, study: PairStudy, pair: PairLabel, key: str, rows: Sequence[Row]) -> None:
        facts = {"study": study.name, "steps": [pair.source_step, pair.target_step]}
        plain = [row.to_dict() for row in rows]
        self.comparison.cohort.pairs.publish(key, label(pair, study.folder), plain, facts)


def label(pair: PairLabel, folder: str | None = None) -> str:
    """The name of a pair in the cohort's folder."""
    seeds = f"seed-{pair.source:04d}--seed-{pair.target:04d}"
    return seeds if folder is None else f"{seeds}--{folder}"
