"""The claims of the paper as data: what it says, what makes the number here, and when that counts as the same.

The data are `paper_ledger.yaml` beside this file (and, by a link, in docs). Everything that decides a verdict stands
there: the paper's number with its tolerance, the rows that make ours in its convention and in the sound one, the
control that would make the claim empty. A claim has a producer, or says why it has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

import polars as pl
from omegaconf import OmegaConf

from polymorph.evidence.rows import COLUMNS, Role
from polymorph.papers.mccann2026.printed_numbers import SUMMARIES, WITHIN, Expected, Kind
from polymorph.studies.registry import STUDIES

LEDGER = Path(__file__).with_name("ledger.yaml")
NO_PRODUCER = "no producer"
SITES = ("all", "inner")
"""In place of a list of sites; `inner` is all but the first and the last."""


SETTING = {
    "convention": "a setting",
    "sound_convention": "the same setting",
    "bears": "A setting, not a finding.",
}
"""Of a claim that a fact makes, unless it says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Selector:
    """Rows of one study, gathered in groups, and how their numbers are told.

    Each of `where` is a column with its value, several values, or null. Without a word on it the role is `estimate`
    and the control null. `prefer` chooses in the same way where such rows are there, and else leaves the rows as
    they are, which is then said. `steps` are two steps of one member; where there are none of them the rows from the
    step that is at the same share of the training stand in.
    """

    study: str
    metric: str
    where: Mapping[str, Any] = field(default_factory=dict)
    prefer: Mapping[str, Any] = field(default_factory=dict)
    sites: Any = "all"
    steps: tuple[int, int] | None = None
    by: tuple[str, ...] = ()
    """Rows that agree in these columns are one group, else every row is."""
    within: str = "median"
    """The number of a group: one of `ledger_numbers.WITHIN`."""
    aggregate: str = "range"
    """What is told of the groups: one of `ledger_numbers.SUMMARIES`."""
    limits: tuple[float, float] | None = None
    """Between which a number can lie: its interval is cut there."""
    less: "Selector | None" = None
    """Taken off, group by group."""
    over: "Selector | None" = None
    """By which it is divided, group by group."""

    def __post_init__(self) -> None:
        if self.study not in STUDIES:
            raise ValueError(f"there is no study {self.study!r}")
        columns = self.columns
        for name in (*self.where, *self.prefer, *self.by):
            if name not in columns:
                raise ValueError(f"the study {self.study} has no column {name!r}")
        if (role := self.where.get("role", "estimate")) not in get_args(Role):
            raise ValueError(f"there is no role {role!r}")
        if self.within not in WITHIN or self.aggregate not in SUMMARIES:
            raise ValueError(f"neither {self.within!r} nor {self.aggregate!r} may be unknown")
        if isinstance(self.sites, str) and self.sites not in SITES:
            raise ValueError(f"sites: {self.sites!r} is neither a list nor one of {', '.join(SITES)}")
        for other in (self.less, self.over):
            if other is not None and (not self.by or other.by != self.by):
                raise ValueError("what is taken off, or divides, is grouped by the same columns")

    @property
    def columns(self) -> Mapping[str, type[pl.DataType]]:
        return COLUMNS | dict(STUDIES[self.study].columns)


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A setting of the cohort, of a preset or of the code, by its dotted name in `ledger_facts`."""

    fact: str


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Nothing here makes this number."""

    because: str


Producer = Selector | Fact | Absent


@dataclass(frozen=True, kw_only=True)
class Emptiness:
    """When a number that is reproduced says nothing: always, or where a control reaches it.

    A control reaches it where it meets the same expectation (`share` null), or where its median is at least this
    share of the median of the claim's own.
    """

    because: str
    control: Selector | None = None
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class CohortSpec:
    """A cohort that claims are about: facts without which nothing here compares, and those that are its own."""

    about: str
    family: Mapping[str, Any]
    exactly: Mapping[str, Any]
    make: str
    """The commands that make it and its analysis."""
    saes: str = ""
    """The commands that train its SAEs."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One numeric claim. `row` is the line of the paper's tables, or the part of its text, where it stands."""

    id: str
    row: str
    claim: str
    cohort: str
    convention: str
    """How the paper makes the number."""
    paper: Expected
    producer: Producer
    sound: Producer
    sound_convention: str
    bears: str
    """What the number can and cannot bear."""
    empty: Emptiness | None = None


@dataclass(frozen=True)
class Ledger:
    """All claims, and the cohorts that they are about, by name."""

    title: str
    cohorts: Mapping[str, CohortSpec]
    entries: Sequence[Entry]


@cache
def load_ledger(path: Path = LEDGER) -> Ledger:
    """The ledger in this file; `ValueError` names the entry and what is wrong with it."""
    plain: Any = OmegaConf.to_container(OmegaConf.load(path))
    check_keys("the ledger", plain, {"title", "cohorts", "entries"})
    cohorts = {name: made("cohort " + name, CohortSpec, own) for name, own in plain["cohorts"].items()}
    entries = [entry_of(own) for own in plain["entries"]]
    ids = [entry.id for entry in entries]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"{twice[0]} stands twice in the ledger")
    if unknown := [entry.id for entry in entries if entry.cohort not in cohorts]:
        raise ValueError(f"{unknown[0]}: its cohort is none of {', '.join(cohorts)}")
    return Ledger(plain["title"], cohorts, entries)


def entry_of(plain: Mapping[str, Any]) -> Entry:
    """An entry from plain data; a setting has no other convention than itself."""
    name = str(plain.get("id"))
    if isinstance(producer := plain.get("producer"), Mapping) and "fact" in producer:
        plain = {**SETTING, "sound": producer, **plain}
    known = {one.name for one in fields(Entry)} | {"tolerance", "because"}
    check_keys(name, plain, known)
    try:
        values = {key: own for key, own in plain.items() if key not in ("tolerance", "because")}
        values["paper"] = expected_of(plain["paper"], plain.get("tolerance"))
        for part in ("producer", "sound"):
            values[part] = producer_of(plain.get(part), plain.get("because"))
        if (empty := plain.get("empty")) is not None:
            own = dict(empty)
            if "control" in own:
                own["control"] = selector_of(own["control"])
            values["empty"] = made(name, Emptiness, own)
        return made(name, Entry, values)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def producer_of(plain: Any, because: str | None) -> Producer:
    """`no producer` with its reason, a fact, or rows."""
    if plain == NO_PRODUCER:
        if not because:
            raise ValueError(f"{NO_PRODUCER}, and no reason")
        return Absent(because=because)
    if not isinstance(plain, Mapping):
        raise TypeError(f"a producer, or the words {NO_PRODUCER!r}, and not {plain!r}")
    return made("producer", Fact, plain) if "fact" in plain else selector_of(plain)


def selector_of(plain: Mapping[str, Any]) -> Selector:
    values = dict(plain)
    for part in ("less", "over"):
        if part in values:
            values[part] = selector_of(values[part])
    for part in ("by", "steps", "limits"):
        if part in values:
            values[part] = tuple(values[part])
    return made("producer", Selector, values)


def expected_of(plain: Mapping[str, Any], tolerance: Any) -> Expected:
    """One of `Kind` with its numbers; the tolerance is a number, or a share of the paper's number as `{share: 0.1}`."""
    ((kind, number),) = plain.items()
    if kind not in get_args(Kind):
        raise ValueError(f"paper: {kind!r} is none of {', '.join(get_args(Kind))}")
    numbers = tuple(float(one) for one in (number if isinstance(number, list) else [number]))
    relative = isinstance(tolerance, Mapping)
    width = tolerance["share"] if relative else tolerance
    return Expected(cast(Kind, kind), numbers, 0.0 if width is None else float(width), relative)


def made(name: str, kind: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass from these values, every key known."""
    check_keys(name, values, {one.name for one in fields(kind)})
    return kind(**values)


def check_keys(name: str, values: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{name}: there is no key {unknown[0]!r}")
