"""One analysis of any source: what is missing is computed, study by study, and claims follow from the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from polymorph.alignment.families import rungs
from polymorph.errors import RunError
from polymorph.evidence.rows import table
from polymorph.pipeline.source import Reasons, Source
from polymorph.pipeline.study_cache import NOTHING, StudyCache, StudyRows
from polymorph.plotting.table_rows import at_last_steps
from polymorph.progress import SILENT, Progress
from polymorph.store import digest
from polymorph.studies.claims import claims_of
from polymorph.studies.registry import STUDIES
from polymorph.studies.study import Study
from polymorph.studies.tables import MEMORY_GIB, study_tables
from polymorph.verdicts.claim import Claim

LADDER = "ladder"


@dataclass(frozen=True)
class Findings:
    """What an analysis found, and what of it had to be computed."""

    studies: Mapping[str, StudyRows]
    """By name, those that were made and those that were refused."""
    claims: Sequence[Claim]
    left_out: Reasons
    computed: Sequence[str]
    """Studies that were not there from before."""
    pairs_computed: int

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        """Of every study that was made; of the ladder, the rows of all steps."""
        return {name: own.table for name, own in self.studies.items() if own.table is not None}


@dataclass
class Analysis:
    """By which studies a source is analysed, and what is there from before."""

    source: Source
    studies: Sequence[str] = tuple(STUDIES)
    memory_gib: float = MEMORY_GIB
    """For the moments of the pairs at the last step, which are held together."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = SILENT
    cache: StudyCache = NOTHING

    def key(self) -> str:
        """Digest of everything that the results follow from; `RequestError` if there is one model alone."""
        source = self.source
        self._settled()
        return digest(
            {
                "studies": {name: self.keys[name] for name in self._asked},
                "written": list(self.studies),
                "left out": source.left_out,
                "provenance": dict(self.provenance),
                "page": source.page_identity(),
            }
        )

    @cached_property
    def keys(self) -> dict[str, str]:
        """By study, the digest of everything that its rows follow from."""
        self._settled()
        return {name: digest(self._identity(study)) for name, study in STUDIES.items()}

    def _identity(self, study: Study) -> dict[str, Any]:
        source = self.source
        reads = study.needs_saes or study.reads_saes
        return {
            "source": source.identity(study),
            "saes": source.saes() if reads else {},
            "families": rungs(),
            **study.identity(source.options.get(study.name)),
        }

    def run(self) -> Findings:
        """What is there from before is read, everything else computed."""
        self._settled()
        there = {name: own for name in self._asked if (own := self.cache.read(name, self.keys[name]))}
        missing = [name for name in self._asked if name not in there]
        made, left_out, pairs_computed = self._made(missing)
        found = {name: {**there, **made}[name] for name in self._asked if name in there or name in made}
        tables = {name: own.table for name, own in found.items() if own.table is not None}
        if not tables:
            raise RunError("; ".join(f"study {name}: {own.refused}" for name, own in found.items()))
        last = {**tables, **({LADDER: at_last_steps(tables[LADDER])} if LADDER in tables else {})}
        left_out = [*self.source.left_out, *left_out, *self._refusals(found)]
        return Findings(found, claims_of(last), left_out, missing, pairs_computed)

    @property
    def _asked(self) -> list[str]:
        """The studies that were asked for; the ladder of pairs that are cached stands beside any of them."""
        return list(dict.fromkeys([*([LADDER] if self.source.kind == "trained" else []), *self.studies]))

    def _settled(self) -> None:
        if not self._is_settled:
            self.source.settle()
            self._is_settled = True

    _is_settled: bool = field(default=False, init=False, repr=False)

    def _made(self, names: Sequence[str]) -> tuple[dict[str, StudyRows], Reasons, int]:
        """The studies that are not there, further reasons for what is left out, and how many pairs were computed."""
        made: dict[str, StudyRows] = {}
        left_out: Reasons = []
        computed = 0
        names = list(names)
        if LADDER in names and (found := self.source.ladder()) is not None:
            made[LADDER] = StudyRows(self.keys[LADDER], table(found.rows, STUDIES[LADDER].columns))
            left_out += [("pair", problem) for problem in found.left_out]
            names.remove(LADDER)
            computed = found.computed
        if names and (evidence := self.source.evidence()) is not None:
            tables, refused = study_tables(evidence, names, self.memory_gib, self.progress)
            if self.source.kind != "trained":  # no pair of theirs is cached by itself
                computed = len(self.source.pairs)
            reasons = {what.removeprefix("study "): why for what, why in refused}
            problems = _problems(evidence.dictionaries)
            for name in names:
                study = STUDIES[name]
                own = tuple(problems) if study.needs_saes or study.reads_saes else ()
                made[name] = StudyRows(self.keys[name], tables.get(name), reasons.get(name, ""), own)
        return made, left_out, computed

    def _refusals(self, found: Mapping[str, StudyRows]) -> Reasons:
        """Studies that could not be made, but for those that such members cannot have at all; and damaged SAEs."""
        kind = self.source.kind
        studies = [(name, own) for name, own in found.items() if own.table is None]
        reasons = [(f"study {name}", own.refused) for name, own in studies if STUDIES[name].is_of(kind)]
        problems = dict.fromkeys(problem for own in found.values() for problem in own.problems)
        return [*reasons, *(("SAE", problem) for problem in problems)]


def _problems(dictionaries: Any) -> Sequence[str]:
    """Why SAEs could not be read."""
    return getattr(dictionaries, "problems", ())  # those of given SAEs have none
