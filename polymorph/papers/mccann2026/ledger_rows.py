"""A judged claim as it is read: the paper's number, ours in its convention, the sound one, and the verdict."""

from collections.abc import Sequence
from itertools import groupby

from polymorph.papers.mccann2026.ledger import Judged, counts
from polymorph.papers.mccann2026.measurement import Sound
from polymorph.papers.mccann2026.printed_numbers import Expected
from polymorph.plotting.wording import DASH, counted

BOUNDS = {"at_least": "≥ ", "at_most": "≤ ", "above": "> ", "below": "< "}
HEADINGS = ("claim", "the paper", "ours, its convention", "ours, sound", "verdict")
MOST = 6
"""Of a list of numbers, so many are told."""


def figure(value: float) -> str:
    """Four digits that count, with a true minus sign."""
    whole = value == round(value) and abs(value) < 1e9
    text = f"{value:.0f}" if whole else f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def of_paper(expected: Expected) -> str:
    """The paper's number."""
    if expected.kind == "range":
        return " … ".join(map(figure, expected.numbers))
    return BOUNDS.get(expected.kind, "") + ", ".join(map(figure, expected.numbers))


def tolerance(expected: Expected) -> str:
    """What is the same, in words; empty where nothing but the number is."""
    if expected.tolerance == 0:
        return ""
    share = f"{100 * expected.tolerance:g} %" if expected.relative else figure(expected.tolerance)
    return f"± {share}"


def of_ours(one: Judged) -> str:
    """What is told in the paper's convention; of many numbers the first ones."""
    if not one.ours:
        return DASH
    if len(one.ours) == 2 and one.entry.paper.kind != "list":
        low, high = map(figure, one.ours)
        return low if low == high else f"{low} … {high}"
    told = [figure(value) for value in one.ours[:MOST]]
    return ", ".join([*told, "…"] if len(one.ours) > MOST else told)


def of_sound(sound: Sound | None) -> str:
    """The number with its 95 % interval, where it has one."""
    if sound is None:
        return DASH
    found = sound.estimate
    if found.low is None or found.high is None:
        return figure(found.value)
    return f"{figure(found.value)} [{figure(found.low)}, {figure(found.high)}]"


def over_what(sound: Sound | None) -> str:
    """Over what the interval is; empty where there is none."""
    return f"interval over {sound.over}" if sound is not None and sound.over else ""


def in_rows(judged: Sequence[Judged]) -> list[tuple[str, list[Judged]]]:
    """By the line of the paper's tables in which they stand."""
    return [(row, list(own)) for row, own in groupby(judged, key=lambda one: one.entry.row)]


def summary(judged: Sequence[Judged]) -> str:
    """How many findings and how many settings got which verdict, and how many on another cohort than the paper's."""
    findings, settings = (
        [one for one in judged if one.is_setting == of_settings] for of_settings in (False, True)
    )
    told = f"{counted(len(judged), 'claim')}. {counted(len(findings), 'finding')}: {_each(findings)}."
    if settings:
        told += f" {counted(len(settings), 'setting')} and counts: {_each(settings)}."
    if elsewhere := [one for one in findings if one.elsewhere]:
        told += f" Findings on another cohort than the paper's, which replicate nothing: {_each(elsewhere)}."
    return told


def _each(judged: Sequence[Judged]) -> str:
    return "; ".join(f"{number} {verdict}" for verdict, number in counts(judged).items() if number)


def to_be_run(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """The claims that are not run here by the commands that would make their numbers."""
    found: dict[str, list[Judged]] = {}
    for one in judged:
        if one.make:
            found.setdefault(one.make, []).append(one)
    return found
