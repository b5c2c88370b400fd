"""Which of the paper's four bars does the cohort pass, and which would a decoy pass too?"""

import polars as pl

from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import cell, joined, nothing, shortened
from polymorph.plotting.wording import DASH, number
from polymorph.studies.bars.claims import BOUNDS, bar_values
from polymorph.studies.bars.divergence import ACROSS, WITHIN
from polymorph.studies.bars.separation import ALL
from polymorph.studies.study import Tables

STUDY = "bars"
SCOPES = {WITHIN: "members by themselves", ACROSS: "members against one another"}
Key = tuple[str, str]


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """How many members and how many decoys pass each bar."""
    found = {(bar, scope): bar_values(rows, bar, scope) for bar in BOUNDS for scope in SCOPES}
    known = {key: own for key, own in found.items() if _members(own).height}
    if not known:
        return nothing("No bar was held against any member: that needs members that are models.")
    lines = [_line(rows, *key, own) for key, own in known.items()]
    columns = ("bar", "bound", "members", "members pass", "decoys pass", "AUC")
    return Answer(joined([_passed(known), _decoys(known)]), columns, shortened(lines))


def _members(own: pl.DataFrame) -> pl.DataFrame:
    return own.filter(pl.col("decoy").is_null())


def _made(own: pl.DataFrame) -> pl.DataFrame:
    return own.filter(pl.col("decoy").is_not_null())


def _passes(some: pl.DataFrame, bar: str) -> int:
    return sum(map(BOUNDS[bar].passed, some["value"]))


def _share(some: pl.DataFrame, bar: str) -> str:
    return f"{_passes(some, bar)} of {some.height}" if some.height else DASH


def _line(rows: pl.DataFrame, bar: str, scope: str, own: pl.DataFrame) -> tuple[str, ...]:
    bound = BOUNDS[bar]
    auc = rows.filter(bar=bar, scope=scope, metric="auc", decoy=ALL)["value"]
    return (
        f"{bar}, {SCOPES[scope]}",
        f"{'below' if bound.below else 'above'} {bound.value:g}".replace("-", "−"),
        cell(_members(own)),
        _share(_members(own), bar),
        _share(_made(own), bar),
        number(float(auc[0]), 2) if len(auc) else DASH,
    )


def _name(key: Key) -> str:
    return f"{key[0]} {key[1]}"


def _passed(known: dict[Key, pl.DataFrame]) -> str:
    each = []
    for scope, who in SCOPES.items():
        told_of = [
            f"{_share(_members(own), bar)} pass {bar}" for (bar, of), own in known.items() if of == scope
        ]
        each += [f"of {who}, {', '.join(told_of)}"] if told_of else []
    text = "; ".join(each)
    return f"{text[:1].upper()}{text[1:]}."


def _decoys(known: dict[Key, pl.DataFrame]) -> str:
    """Bars that members pass, and decoys too; and those that no decoy passes."""
    made = {key: own for key, own in known.items() if _made(own).height}
    if not made:
        return "There are no decoys, so what passing a bar says is not known."
    passed = {key: own for key, own in made.items() if _passes(_members(own), key[0])}
    empty = [
        f"{_name(key)} ({_share(_made(own), key[0])})"
        for key, own in passed.items()
        if _passes(_made(own), key[0])
    ]
    clean = [_name(key) for key, own in passed.items() if not _passes(_made(own), key[0])]
    sentences = []
    if empty:
        sentences.append(f"Decoys pass too, so that passing is no evidence: {', '.join(empty)}.")
    if clean:
        sentences.append(f"No decoy passes {', '.join(clean)}.")
    failed = [key for key in made if key not in passed and _passes(_made(made[key]), key[0])]
    if failed:
        told_of = ", ".join(f"{_name(key)} ({_share(_made(made[key]), key[0])})" for key in failed)
        sentences.append(f"Passed by no member and yet by decoys: {told_of}.")
    return joined(sentences)
