"""Do steering vectors of one member work on another, and through which map?"""

import polars as pl

from polymorph.alignment.families import in_ladder_order
from polymorph.plotting.answer import Answer
from polymorph.plotting.sentences import (
    across,
    cell,
    joined,
    middle,
    nothing,
    share,
    shortened,
    together,
)
from polymorph.plotting.wording import counted
from polymorph.steering.regimes import REGIMES, WORKS
from polymorph.studies.steering.bench import NAMED, SYSTEMATIC
from polymorph.studies.steering.figure import SHUFFLED
from polymorph.studies.study import Tables

STUDY = "steering"
SHOWN = ("identity", "orthogonal", "affine")
"""Maps that stand in the table: a similarity does nearly what R does."""
MAPS = {"identity": "as it is", "orthogonal": "through R"}


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """How often the vectors of another member work as they are, through R, and through a map of shuffled tokens."""
    regimes = rows.filter(metric="regime")
    if regimes.is_empty():
        return nothing(
            "No vector of one member was added to another's stream, so whether it works is not known."
        )
    named = rows.filter(group=NAMED)
    lines = [_line(named, *key) for key in _keys(named.filter(metric="regime")) if key[1] in SHOWN]
    columns = (
        "contrast: map",
        "transfer efficiency",
        "works",
        *(regime for regime in REGIMES if regime not in WORKS),
    )
    text = joined([_named(named), _many(rows), _inverted(regimes)])
    return Answer(text, columns, shortened(lines))


def _keys(regimes: pl.DataFrame) -> list[tuple[str, str, str | None]]:
    """Contrast, map and control, by contrast and then up the ladder."""
    found = set(regimes.select("contrast", "map", "control").iter_rows())
    order = in_ladder_order([name for _, name, _ in found])
    return sorted(found, key=lambda key: (key[0], key[2] is not None, order.index(key[1])))


def _of(rows: pl.DataFrame, name: str, control: str | None = None) -> pl.DataFrame:
    return rows.filter(pl.col("control").eq_missing(pl.lit(control)), map=name)


def _line(named: pl.DataFrame, contrast: str, name: str, control: str | None) -> tuple[str, ...]:
    own = _of(named.filter(contrast=contrast), name, control)
    called = own.filter(metric="regime")
    others = (str(called.filter(regime=regime).height) for regime in REGIMES if regime not in WORKS)
    how = "shuffled R (control)" if control == SHUFFLED else MAPS.get(name, name.replace("_", " "))
    return (f"{contrast}: {how}", cell(_efficiency(own)), _share(called), *others)


def _efficiency(rows: pl.DataFrame) -> pl.DataFrame:
    """At the dose that is tested, on members whose own vector works."""
    keys = ["source", "target", "contrast", "group", "map", "control", "dose"]
    called = rows.filter(pl.col("regime") != "undetermined", metric="regime").select(keys)
    return rows.filter(metric="transfer_efficiency").join(called, on=keys, how="semi", nulls_equal=True)


def _works(called: pl.DataFrame) -> int:
    return called.filter(pl.col("regime").is_in(WORKS)).height


def _share(called: pl.DataFrame) -> str:
    """Of those whose own vector works."""
    return f"{_works(called)} of {called.filter(pl.col('regime') != 'undetermined').height}"


def _named(named: pl.DataFrame) -> str:
    if named.is_empty():
        return "No contrast with a name was made."
    called = named.filter(metric="regime")
    where = f"At {together(called['site'].drop_nulls().unique().sort())}, of {_contrasts(called)}"
    mapped = _of(called, "orthogonal")
    if not mapped.filter(pl.col("regime") != "undetermined").height:
        return f"{where} no member's own vector is shown to work, so whether another's does cannot be told."
    effect = _efficiency(_of(named, "orthogonal"))
    size = across(effect, of=counted(effect.height, "case"))
    achieved = f", with {size} of its effect" if effect.height else ""
    return (
        f"{where} another member's vector works through R in {_share(mapped)} cases where the own one "
        f"does{achieved}; {_beside(called)}."
    )


def _many(rows: pl.DataFrame) -> str:
    own = rows.filter(group=SYSTEMATIC)
    shares = own.filter(metric="share_working", role="estimate")
    if shares.is_empty():
        return ""
    n = own.filter(metric="regime")["contrast"].n_unique()
    told_of = [
        f"{middle(_of(shares, name), share)} {how}" for name, how in MAPS.items() if _of(shares, name).height
    ]
    works = " and ".join(reversed(told_of))
    return f"Of {counted(n, 'direction')} made by rule, {works} carry over where the own works."


def _inverted(regimes: pl.DataFrame) -> str:
    own = regimes.filter(role="estimate", regime="inverted")
    if own.is_empty():
        return ""
    return f"A change of sign (inverted) is shown in {counted(own.height, 'case')}."


def _contrasts(called: pl.DataFrame) -> str:
    return counted(called["contrast"].n_unique(), "contrast")


def _beside(called: pl.DataFrame) -> str:
    """The same vectors as they are, through an affine map, and through R of shuffled tokens."""
    parts = [
        (how, _of(called, name))
        for name, how in (("identity", "as it is"), ("affine", "through the affine map"))
    ]
    told_of = [f"{how} in {_share(own)}" for how, own in parts if own.height]
    shuffled, mapped = _of(called, "orthogonal", SHUFFLED), _of(called, "orthogonal")
    if shuffled.is_empty():
        return ", ".join([*told_of, "the control of shuffled tokens is missing"])
    told_of.append(f"through R of shuffled tokens (control) in {_share(shuffled)}")
    reached = _works(shuffled) >= max(_works(mapped), 1)
    return ", ".join(told_of) + (", so that is no evidence of transfer" if reached else "")
