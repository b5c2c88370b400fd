"""Contrasts: named pairs of conditions whose means differ by a steering vector, and what it is meant to do.

A contrast is data. Its conditions are on labels of positions, or it holds prompts of two classes; its target is two
sets of classes of one head, and steering is meant to raise the log-odds of the first against the second (of the
second against the first, where `sign` is −1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

from polymorph.checks import nearest
from polymorph.errors import RequestError
from polymorph.steering.prompts import read_prompts, shipped_prompts

POSITION = "position"
"""In a condition, beside the heads: how many tokens of its document the model has read before."""
LARGEST = 2**31 - 1
"""Of a label."""
LEAST = 50
"""Positions, or distinct prompts, behind each of the two means."""
Condition = Mapping[str, tuple[int, ...]]
"""By head, or `position`: the values allowed; a position fulfils it that fulfils every line."""
Group = Literal["named", "systematic"]


@dataclass(frozen=True)
class Target:
    """Classes of a head that steering is meant to make more likely, and those at whose cost."""

    head: str
    positive: tuple[int, ...]
    negative: tuple[int, ...]


@dataclass(frozen=True)
class LabelContrast:
    """Mean over the positions of one condition less that over the other's; steering adds it `sign` times."""

    name: str
    positive: Condition
    negative: Condition
    target: Target
    sign: int = 1


@dataclass(frozen=True)
class PromptContrast:
    """Mean at the last token of prompts of one class less that of the other; `words` begin with the target's tokens."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    positive_words: tuple[str, ...]
    negative_words: tuple[str, ...]
    sign: int = 1


Contrast = LabelContrast | PromptContrast


def paper_contrasts() -> tuple[LabelContrast, ...]:
    """The three directions of "Polymorphism Is Rotation" on Dyck: one deeper, valid again, and closing."""
    closers, openers = (4, 6, 8), (3, 5, 7)
    return (
        LabelContrast("depth", {"depth": (5,)}, {"depth": (4,)}, Target("depth", (5,), (4,))),
        LabelContrast(
            "sticky_invalid",
            {"valid": (1,), "depth": (4,)},
            {"valid": (0,), "depth": (4,)},
            Target("valid", (1,), (0,)),
            sign=-1,
        ),
        LabelContrast("closer", {"tok": closers}, {"tok": openers}, Target("tok", closers, openers)),
    )


def systematic_contrasts() -> tuple[LabelContrast, ...]:
    """Directions on Dyck by pairs of depths, validity, family, token and position: 71 of them.

    Where a text has fewer than `LEAST` positions of a condition, there is no such direction.
    """
    found = [_depths(high, low) for low, high in combinations(range(9), 2) if high - low <= 3]
    found += [_depths(low + 1, low, " valid", {"valid": (0,)}) for low in range(8)]
    found += [_validity(f" at depth {depth}", {"depth": (depth,)}) for depth in range(9)]
    bins = {f" at {low} to {high - 1}": tuple(range(low, high)) for low, high in ((1, 8), (8, 16), (16, 32))}
    found += [_validity(name, {POSITION: places}) for name, places in bins.items()]
    found += [
        _depths(low + 1, low, name, {POSITION: places}) for low in range(4) for name, places in bins.items()
    ]
    brackets = tuple(range(3, 9))
    found += [_tokens(f"token {one}", (one,), tuple(b for b in brackets if b != one)) for one in brackets]
    found += [_tokens(f"token {a} less {b}", (a,), (b,)) for a, b in ((4, 3), (6, 5), (8, 7))]
    for kind, first in (("openers", 3), ("closers", 4)):
        found += [_tokens(f"{kind} {a} less {b}", (a,), (b,)) for a, b in combinations(range(first, 9, 2), 2)]
    families = combinations(((3, 4), (5, 6), (7, 8)), 2)
    return (*found, *(_tokens(f"family {a[0]}{a[1]} less {b[0]}{b[1]}", a, b) for a, b in families))


def _depths(high: int, low: int, where: str = "", more: Condition | None = None) -> LabelContrast:
    positive, negative = ({"depth": (depth,), **(more or {})} for depth in (high, low))
    target = Target("depth", (high,), (low,))
    return LabelContrast(f"depth {high} less {low}{where}", positive, negative, target)


def _validity(where: str, more: Condition) -> LabelContrast:
    positive, negative = ({"valid": (valid,), **more} for valid in (1, 0))
    return LabelContrast(f"invalid less valid{where}", positive, negative, Target("valid", (1,), (0,)))


def _tokens(name: str, positive: tuple[int, ...], negative: tuple[int, ...]) -> LabelContrast:
    return LabelContrast(name, {"tok": positive}, {"tok": negative}, Target("tok", positive, negative))


def prompt_contrasts() -> tuple[PromptContrast, ...]:
    """Those that ship: sentiment, number magnitude, and names."""
    return tuple(_of_prompts(name, shipped_prompts(name), {}) for name in ("sentiment", "magnitude", "name"))


_KEYS = ("name", "positive", "negative", "sign", "target", "prompts")


def contrast_of(asked: Any) -> Contrast:
    """One entry of `contrasts=[…]`; `RequestError` names the key, the value and what would be right."""
    if not isinstance(asked, Mapping):
        raise RequestError(f"contrasts: {asked!r} is not of the form {{name:…, positive:…, negative:…}}")
    if unknown := [key for key in asked if key not in _KEYS]:
        key = unknown[0]
        raise RequestError(f"contrasts: there is no key {key!r}{nearest(str(key), _KEYS)}")
    name = asked.get("name")
    if not isinstance(name, str) or not name.strip():
        raise RequestError(f"contrasts: name={name!r}: every contrast needs a name")
    if type(sign := asked.get("sign", 1)) is not int or sign not in (1, -1):
        raise RequestError(f"contrast {name}: sign={sign!r}: 1, or -1 where the vector is subtracted")
    if "prompts" in asked:
        return _of_prompts(name, read_prompts(name, asked["prompts"]), asked)
    positive, negative = (_condition(name, key, asked.get(key)) for key in ("positive", "negative"))
    if positive == negative:
        raise RequestError(f"contrast {name}: positive and negative are one condition")
    return LabelContrast(name, positive, negative, _target(name, asked, positive, negative), int(sign))


def _of_prompts(
    name: str,
    found: tuple[Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]],
    asked: Mapping[str, Any],
) -> PromptContrast:
    texts, words = found
    classes = list(texts)
    if len(classes) != 2:
        raise RequestError(
            f"contrast {name}: prompts of two classes, and there are {len(classes)}: {classes}"
        )
    positive = str(asked.get("positive", classes[0]))
    negative = str(asked.get("negative", next(one for one in classes if one != positive)))
    if {positive, negative} != set(classes):
        raise RequestError(
            f"contrast {name}: positive={positive!r}, negative={negative!r}: the classes are {classes}"
        )
    for one in classes:
        if (count := len(set(texts[one]))) < LEAST:
            raise RequestError(
                f"contrast {name}: class {one} has {count} distinct prompts, and needs at least {LEAST}"
            )
    first, second = (tuple(dict.fromkeys(texts[one])) for one in (positive, negative))
    sides = _word_sides(
        name, asked.get("target"), {"positive": words.get(positive), "negative": words.get(negative)}
    )
    return PromptContrast(name, first, second, *sides, int(asked.get("sign", 1)))


def _word_sides(
    name: str, target: Any, in_file: Mapping[str, Sequence[str] | None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of both sides: those that are asked for, else those of the file."""
    given = {} if target is None else target
    if not isinstance(given, Mapping) or not set(given) <= set(in_file):
        raise RequestError(
            f"contrast {name}: target={target!r}: words of prompts have the keys {', '.join(in_file)}"
        )
    found = []
    for key, own in in_file.items():
        side = given.get(key, list(own or ()))
        if not isinstance(side, list | tuple) or not side or not all(isinstance(w, str) and w for w in side):
            raise RequestError(
                f"contrast {name}: target.{key}={side!r}: a list of words that the class makes more likely, here or in "
                "the file"
            )
        found.append(tuple(side))
    return found[0], found[1]


def _condition(name: str, key: str, given: Any) -> Condition:
    if not isinstance(given, Mapping) or not given:
        raise RequestError(f"contrast {name}: {key}={given!r}: labels by head, such as {{depth:5}}")
    return {str(head): _classes(f"contrast {name}: {key}.{head}", values) for head, values in given.items()}


def _classes(what: str, given: Any) -> tuple[int, ...]:
    values = list(given) if isinstance(given, list | tuple) else [given]
    if not values or any(type(value) is not int or not 0 <= value <= LARGEST for value in values):
        raise RequestError(f"{what}={given!r}: a whole number from 0 to {LARGEST}, or a list of them")
    return tuple(sorted(set(values)))


def _target(name: str, asked: Mapping[str, Any], positive: Condition, negative: Condition) -> Target:
    """What is asked for; otherwise the one head in which the conditions differ, with their classes."""
    given = asked.get("target")
    if given is None:
        differing = [head for head in positive if head in negative and positive[head] != negative[head]]
        if len(differing) != 1 or differing[0] == POSITION:
            raise RequestError(
                f"contrast {name}: target={{head:…, positive:…, negative:…}} is needed where the conditions do not "
                "differ in one head alone"
            )
        given = {
            "head": differing[0],
            "positive": list(positive[differing[0]]),
            "negative": list(negative[differing[0]]),
        }
    keys = ("head", "positive", "negative")
    if not isinstance(given, Mapping) or sorted(given) != sorted(keys):
        raise RequestError(f"contrast {name}: target={given!r}: it has the keys {', '.join(keys)}")
    if given["head"] == POSITION:
        raise RequestError(
            f"contrast {name}: target.head={POSITION}: members say nothing of it; give a head of theirs"
        )
    sides = [_classes(f"contrast {name}: target.{key}", given[key]) for key in keys[1:]]
    if shared := sorted(set(sides[0]) & set(sides[1])):
        raise RequestError(f"contrast {name}: target: class {shared[0]} is on both sides")
    return Target(str(given["head"]), *sides)


def plain(contrast: Contrast) -> dict[str, Any]:
    """All that decides a contrast, as plain data."""
    return {"kind": type(contrast).__name__, **asdict(contrast)}
