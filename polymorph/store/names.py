"""The names of a cohort's parts: checked where people give them, and read back strictly."""

import re

from polymorph.errors import RequestError

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
SEED_DIGITS = 4
STEP_DIGITS = 8


def check_name(name: str, key: str = "cohort.name") -> str:
    """The name itself, which is then safe in paths, figures and pages; `RequestError` otherwise."""
    if NAME.fullmatch(name) is None:
        raise RequestError(
            f"{key}={name!r} must be 1 to 100 letters, digits, dots, underscores or hyphens, "
            "and not start with a dot"
        )
    return name


def seed_name(seed: int) -> str:
    return f"seed-{_number(seed):0{SEED_DIGITS}d}"


def step_name(step: int) -> str:
    return f"step-{_number(step):0{STEP_DIGITS}d}"


def seed_of(name: str) -> int | None:
    """The seed that has this name; None for any other name."""
    return _number_of(name, "seed", SEED_DIGITS)


def step_of(name: str) -> int | None:
    """The step that has this name; None for any other name."""
    return _number_of(name, "step", STEP_DIGITS)


def _number(value: int) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number from 0 on")
    return value


def _number_of(name: str, word: str, digits: int) -> int | None:
    match = re.fullmatch(rf"{word}-([0-9]{{{digits},18}})", name)
    number = None if match is None else int(match[1])
    # One number has one name: `seed-00003` is nobody's.
    return number if number is not None and name == f"{word}-{number:0{digits}d}" else None
