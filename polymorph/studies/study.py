"""What a study is to the rest: one folder, and in it one value `STUDY` that says all that others must know of it.

The folder's modules are found by their names, and loaded when they are first asked:

| module | what it has | |
|---|---|---|
| `rows.py` | `study_rows(evidence)` | the rows of its table |
| | `applies(evidence)` | whether it can be asked, where that is more than `needs` says; may be missing |
| `answer.py` | `answer(table, tables)` | its answer in a few sentences; may be missing |
| `claims.py` | `study_claims(tables)` | its claims; may be missing |
| `options.py` | `Options` | what a user may ask of it, which `STUDY` names; may be missing |
| of `figures` | `plate(table, ladder)` | a figure |
| `notes.md` | | what docs/tables.md says below its metrics; may be missing |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import polars as pl

from polymorph.evidence.rows import COLUMNS
from polymorph.plotting.table_rows import at_last_steps, completed
from polymorph.studies.needs import BEYOND, LACKING, Kind, Need, met

if TYPE_CHECKING:
    from polymorph.evidence.evidence import Evidence
    from polymorph.evidence.rows import Row
    from polymorph.plotting.answer import Answer
    from polymorph.plotting.plate import Drawn
    from polymorph.verdicts.claim import Claim

Columns = Mapping[str, type[pl.DataType]]
Tables = Mapping[str, pl.DataFrame]
Scope = Literal["pairs", "site", "all"]


class Options(Protocol):
    """What a user may ask of a study: a dataclass whose fields are keys of `analyze.py`, each with its sentence."""

    def request(self) -> Any:
        """What the study reads, from plain data; `RequestError` for what cannot be right of any cohort."""

    def identity(self) -> Mapping[str, Any]:
        """What makes two requests the same, as JSON."""

    def check(self, evidence: "Evidence") -> None:
        """`RequestError` for what these members cannot be asked."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question asked of a cohort; `package` is its folder, as a module."""

    package: str
    question: str
    place: int
    """On the page, from the top."""
    metrics: Mapping[str, str]
    """What its rows measure, and how each is defined."""
    columns: Columns = field(default_factory=dict)
    """The further key columns of its table."""
    version: int = 1
    """Of its rows: a change of any definition counts it up, and then no cached row is read as one of them."""
    options: type[Options] | None = None
    needs: frozenset[Need] = frozenset()
    """What it asks of members beside the moments of their activations."""
    reads_saes: bool = False
    """Whether it says more where there are SAEs, beside what it says without."""
    lacking: str = ""
    """What is lacking where it does not apply, if that is more than `needs` says."""
    kinds: frozenset[Kind] = frozenset({"given", "planted", "trained"})
    """Of which cohorts it is asked, where `needs` does not decide it."""
    scope: Scope = "site"
    """How much it must see at once, because memory is bounded: some pairs of a site, all of a site, or all."""
    figures: Sequence[str] = ()
    """Modules of the folder, in the order of the page."""
    figures_of_training: Sequence[str] = ()
    """Those that come after them where members were trained."""
    last_steps_only: bool = False
    """Whether its table may hold every step, of which figures and answers read the last of every pair."""
    limits: Sequence[str] = ()
    """What its numbers can and cannot bear, in sentences."""

    @property
    def name(self) -> str:
        return self.package.rpartition(".")[2]

    @property
    def missing(self) -> str:
        """What is lacking where it does not apply."""
        return self.lacking or " and ".join(LACKING[need] for need in sorted(self.needs))

    @property
    def needs_saes(self) -> bool:
        """Whether it has nothing to say without SAEs; others may say more with them."""
        return "SAEs" in self.needs

    def is_of(self, kind: Kind) -> bool:
        """Whether it can be asked of a cohort of this kind at all."""
        return kind in self.kinds and not (self.needs & BEYOND[kind])

    def applies(self, evidence: "Evidence") -> bool:
        """Whether it can be asked of these members."""
        own = getattr(self._module("rows"), "applies", None)
        return all(met(need, evidence) for need in self.needs) and (own is None or bool(own(evidence)))

    def identity(self, options: Options | None = None) -> dict[str, Any]:
        """What decides its rows beside the members: its part of a cache key, as JSON."""
        asked = self.options() if options is None and self.options is not None else options
        return {
            "study": self.name,
            "version": self.version,
            "options": {} if asked is None else dict(asked.identity()),
        }

    def request(self, evidence: "Evidence") -> Any:
        """What is asked of it: as the evidence says, or all that is built in; None for a study without options."""
        if self.name in evidence.options:
            return evidence.options[self.name]
        return None if self.options is None else self.options().request()

    def rows(self, evidence: "Evidence") -> Iterator["Row"]:
        found: Iterator[Row] = self._module("rows").study_rows(evidence)
        return found

    def answer(self, tables: Tables) -> "Answer | None":
        """From its own whole table, and beside it those of other studies; None where it was not made."""
        if self.name not in tables or not self._has("answer"):
            return None
        found: Answer = self._module("answer").answer(self.table(tables), tables)
        return found

    def table(self, tables: Tables) -> pl.DataFrame:
        """Its table with all of its columns, of those about all steps at the last ones; no rows where it was not
        made."""
        rows = completed(tables.get(self.name, pl.DataFrame()), COLUMNS | dict(self.columns))
        return at_last_steps(rows) if self.last_steps_only else rows

    def claims(self, tables: Tables) -> "Sequence[Claim]":
        return list(self._module("claims").study_claims(tables)) if self._has("claims") else []

    def plates(self, table: pl.DataFrame, ladder: pl.DataFrame, trained: bool) -> "list[Drawn]":
        """Its figures, from its whole table and the ladder at the last steps."""
        names = (*self.figures, *(self.figures_of_training if trained else ()))
        return [self._module(name).plate(table, ladder) for name in names]

    def _has(self, module: str) -> bool:
        return find_spec(f"{self.package}.{module}") is not None

    def _module(self, name: str) -> ModuleType:
        return import_module(f"{self.package}.{name}")
