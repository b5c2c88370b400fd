"""Do steering vectors of one member work on another, and through which map?"""

import polars as pl

from polymorph.report.answers.answer import Answer
from polymorph.report.answers.saying import (
    SHARED,
    across,
    cell,
    joined,
    middle,
    nothing,
    share,
    shortened,
)
from polymorph.report.answers.tables import Tables
from polymorph.report.figures.steering import SHUFFLED
from polymorph.report.look import in_ladder_order
from polymorph.report.wording import counted, listed
from polymorph.steering.regimes import REGIMES, WORKS
from polymorph.studies.steering_bench import NAMED, SYSTEMATIC

STUDY = "steering"
BEARS = (
    "It can bear whether these directions, at this site and these doses, do on another member what they do on "
    "their own. "
    "It says nothing of directions that were not tried, and nothing where a member's own vector does not work.",
    "Works is clean or partial, shown above random directions under Holm's correction. Overdriven is a larger "
    "KL for no "
    "more effect, which the paper calls inverted; here inverted is a change of sign.",
    SHARED,
)
SHOWN = ("identity", "orthogonal", "affine")
"""Maps that stand in the table: a similarity does nearly what R does."""
MAPS = {"identity": "as it is", "orthogonal": "through R"}


def answer(rows: pl.DataFrame, _: Tables) -> Answer:
    """How often the vectors of another member work as they are, through R, and through a map of shuffled tokens."""
    regimes = rows.filter(metric="regime")
    if regimes.is_empty():
        return nothing(
            "No vector of one member was added to another's stream, so whether it works is not known.", BEARS
        )
    named = rows.filter(group=NAMED)
    lines = [_line(named, *key) for key in _keys(named.filter(metric="regime")) if key[1] in SHOWN]
    columns = (
        "contrast: map",
        "transfer efficiency",
        "works",
        *(regime for regime in REGIMES if regime not in WORKS),
    )
    text = joined([_named(named), _through_others(named), _many(rows), _inverted(regimes)])
    return Answer(text, columns, shortened(lines), BEARS)


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
    site = listed(named["site"].drop_nulls().unique().sort())
    called = named.filter(metric="regime")
    contrasts = counted(called["contrast"].n_unique(), "contrast")
    mapped, raw, shuffled = (
        _of(called, *about) for about in (("orthogonal",), ("identity",), ("orthogonal", SHUFFLED))
    )
    beside = [f"{_share(raw)} as they are"] if raw.height else []
    if shuffled.height:
        reached = _works(shuffled) >= max(_works(mapped), 1)
        beside.append(
            f"{_share(shuffled)} through R of shuffled tokens (control)"
            + (", which is as good: that is no evidence of transfer" if reached else "")
        )
    else:
        beside.append("the control of shuffled tokens is missing")
    effect = _efficiency(_of(named, "orthogonal"))
    return (
        f"At {site}, of {contrasts} over pairs of members, another's vector works through R in {_share(mapped)} cases, "
        f"{', '.join(beside)}. "
        + (
            f"Through R it has {across(effect, of=counted(effect.height, 'case'))} of the own vector's effect."
            if effect.height
            else ""
        )
    ).strip()


def _through_others(named: pl.DataFrame) -> str:
    affine = _of(named.filter(metric="regime"), "affine")
    return f"Through the affine map: {_share(affine)}." if affine.height else ""


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
