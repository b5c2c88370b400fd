"""The paper's claims held against an analysis: a verdict for each, by rules that stand in `paper_ledger.yaml`.

*reproduced*: the number in the paper's convention is within the tolerance of the paper's; *reproduced but
uninformative*: it is, and a control reaches it too, or it could not have failed; *not reproduced*; *not run here*:
this is no cohort of the kind that the claim is about, or nothing made the number. Numbers of a cohort that differs from
the paper's in anything else, as in how long it was trained, are given and judged, and what differs stands beside.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from polymorph.papers.mccann2026.entries import (
    Absent,
    CohortSpec,
    Emptiness,
    Entry,
    Fact,
    Ledger,
    Producer,
    Selector,
)
from polymorph.papers.mccann2026.measurement import (
    Measured,
    Missing,
    Sound,
    Tables,
    measured,
    sound_estimate,
)
from polymorph.studies.registry import STUDIES
from polymorph.verdicts.estimate import Estimate

REPRODUCED, UNINFORMATIVE = "reproduced", "reproduced but uninformative"
NOT_REPRODUCED, NOT_RUN = "not reproduced", "not run here"
VERDICTS = (REPRODUCED, UNINFORMATIVE, NOT_REPRODUCED, NOT_RUN)
PLACE = {
    True: "within the paper's number and its tolerance",
    False: "outside the paper's number and its tolerance",
}
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """An entry with its verdict; `ours` is what is told in the paper's convention, `sound` the other number."""

    entry: Entry
    verdict: str
    reason: str
    ours: tuple[float, ...] = ()
    count: int = 0
    sound: Sound | None = None
    control: tuple[float, ...] = ()
    elsewhere: tuple[str, ...] = ()
    """What differs from the cohort that the claim is about; empty where it is that one."""
    make: str = ""
    """The commands that would make a number that is not here."""

    @property
    def is_setting(self) -> bool:
        """Whether the number was set and not measured."""
        return _is_setting(self.entry.producer)

    @property
    def told(self) -> str:
        """The verdict, and whether it is of another cohort than the paper's."""
        return f"{self.verdict} (on another cohort)" if self.elsewhere else self.verdict


def judge_all(ledger: Ledger, tables: Tables, facts: Facts) -> list[Judged]:
    """Every entry in its order; of the ladder, `tables` has the rows of the last steps."""
    return [judge(entry, ledger.cohorts[entry.cohort], tables, facts) for entry in ledger.entries]


def judge(entry: Entry, spec: CohortSpec, tables: Tables, facts: Facts) -> Judged:
    """The verdict on one entry."""
    if isinstance(entry.producer, Absent):
        return Judged(entry, NOT_RUN, f"no producer: {entry.producer.because}")
    if others := differences(spec.family, facts):
        reason = f"the claim is about {spec.about}, and this cohort has {others[0]}"
        study = entry.producer.study if isinstance(entry.producer, Selector) else None
        return Judged(entry, NOT_RUN, reason, make=_how(study, spec))
    ours = _number(entry.producer, tables, facts)
    sound = _sound(entry.sound, tables, facts)
    if isinstance(ours, Missing):
        return Judged(entry, NOT_RUN, ours.reason, sound=sound, make=_how(ours.study, spec))
    about: dict[str, Any] = {"ours": ours.told, "count": ours.count, "sound": sound}
    about["elsewhere"] = (*differences(spec.exactly, facts), *ours.instead)
    if isinstance(entry.producer, Fact) and entry.producer.fact.startswith(("code.", "preset.")):
        about["elsewhere"] = ()  # the same for every cohort
    if not entry.paper.comparable(ours.told):
        reason = f"{len(ours.told)} numbers, and the paper has {len(entry.paper.numbers)}"
        return Judged(entry, NOT_RUN, reason, make=spec.make, **about)
    if not entry.paper.met(ours.told) and about["elsewhere"] and _is_setting(entry.producer):
        return Judged(entry, NOT_RUN, "this cohort is set otherwise", make=spec.make, **about)
    met = entry.paper.met(ours.told)
    if entry.empty is not None:
        return _emptied(entry, entry.empty, ours, met, tables, about)
    return Judged(entry, REPRODUCED if met else NOT_REPRODUCED, PLACE[met], **about)


def _is_setting(producer: Producer) -> bool:
    """Whether a number follows from how a cohort was made, so that on another one it is no finding."""
    return isinstance(producer, Fact) or (isinstance(producer, Selector) and producer.aggregate == "count")


def _emptied(
    entry: Entry, empty: Emptiness, ours: Measured, met: bool, tables: Tables, about: dict[str, Any]
) -> Judged:
    """A number beside its control, which can only empty one that is reproduced."""
    if empty.control is None:
        return Judged(entry, UNINFORMATIVE, empty.because, **about) if met else _outside(entry, "", about)
    control = measured(empty.control, tables)
    if isinstance(control, Missing):
        missing = f"; its control was not made: {control.reason}"
        return (
            Judged(entry, REPRODUCED, PLACE[met] + missing, **about)
            if met
            else _outside(entry, missing, about)
        )
    about["control"] = control.told
    told = ", ".join(f"{one:.4g}" for one in control.told)
    if not met:
        return _outside(entry, f"; the control has {told}", about)
    if _reached(entry, empty, ours, control):
        return Judged(entry, UNINFORMATIVE, f"{empty.because}; the control has {told}", **about)
    return Judged(
        entry, REPRODUCED, f"{PLACE[met]}, and the control, with {told}, does not reach it", **about
    )


def _outside(entry: Entry, more: str, about: dict[str, Any]) -> Judged:
    return Judged(entry, NOT_REPRODUCED, PLACE[False] + more, **about)


def _reached(entry: Entry, empty: Emptiness, ours: Measured, control: Measured) -> bool:
    if empty.share is None:
        return entry.paper.comparable(control.told) and entry.paper.met(control.told)
    return median(control.told) >= empty.share * median(ours.told)


def differences(wanted: Mapping[str, Any], facts: Facts) -> tuple[str, ...]:
    """In what a cohort is not what is wanted, in words."""
    return tuple(
        f"{name} {_short(facts.get(name, 'not recorded'))} instead of {_short(value)}"
        for name, value in wanted.items()
        if facts.get(name) != value
    )


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(producer: Selector | Fact, tables: Tables, facts: Facts) -> Measured | Missing:
    if isinstance(producer, Selector):
        return measured(producer, tables)
    value = facts.get(producer.fact)
    if value is None or isinstance(value, str):
        return Missing(f"{producer.fact} is not recorded")
    told = tuple(float(one) for one in (value if isinstance(value, list) else [value]))
    return Measured(told, len(told)) if told else Missing(f"{producer.fact} is empty")


def _sound(producer: Producer, tables: Tables, facts: Facts) -> Sound | None:
    if isinstance(producer, Selector):
        found = sound_estimate(producer, tables)
        return None if isinstance(found, Missing) else found
    if isinstance(producer, Fact) and isinstance(own := _number(producer, tables, facts), Measured):
        return Sound(Estimate(own.told[0], None, None), "") if len(own.told) == 1 else None
    return None


def _how(study: str | None, spec: CohortSpec) -> str:
    """The commands that would make what is missing."""
    saes = study is not None and STUDIES[study].needs_saes
    if not (saes and spec.saes):
        return spec.make
    first, *rest = spec.make.split(" && ")
    return " && ".join([first, spec.saes, *rest])


def counts(judged: Sequence[Judged]) -> dict[str, int]:
    """How many there are of every verdict."""
    return {verdict: sum(one.verdict == verdict for one in judged) for verdict in VERDICTS}


def write_ledger(judged: Sequence[Judged], cohort: str) -> bytes:
    """The ledger as JSON: every entry with its data, its numbers and its verdict."""
    plain = {"cohort": cohort, "counts": counts(judged), "entries": [_plain(one) for one in judged]}
    return json.dumps(plain, ensure_ascii=False, indent=1).encode() + b"\n"


def _plain(one: Judged) -> dict[str, Any]:
    entry, sound = one.entry, one.sound
    return {
        "id": entry.id,
        "row": entry.row,
        "claim": entry.claim,
        "cohort": entry.cohort,
        "convention": entry.convention,
        "paper": asdict(entry.paper),
        "ours": list(one.ours),
        "count": one.count,
        "sound_convention": entry.sound_convention,
        "sound": None if sound is None else _interval(sound),
        "control": list(one.control),
        "verdict": one.verdict,
        "reason": one.reason,
        "on_another_cohort": list(one.elsewhere),
        "make": one.make,
        "bears": entry.bears,
        "producer": _producer(entry.producer),
        "sound_producer": _producer(entry.sound),
    }


def _interval(sound: Sound) -> dict[str, Any]:
    found = sound.estimate
    return {"value": found.value, "low": found.low, "high": found.high, "interval_over": sound.over or None}


def _producer(producer: Producer) -> Any:
    if isinstance(producer, Absent):
        return "no producer"
    return {key: own for key, own in asdict(producer).items() if own not in (None, {}, ())}
