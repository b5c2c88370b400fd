"""Where two pieces of plain data differ, by dotted keys."""

from collections.abc import Iterator, Mapping
from typing import Any

from polymorph.store.canonical_json import canonical

MISSING = "nothing"
SHOWN = 8  # differences in one message
WIDTH = 80  # characters of one value


def differences(there: Any, here: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each dotted key whose values differ, in order, with both values; lists are compared as a whole."""
    if not isinstance(there, Mapping) or not isinstance(here, Mapping):
        if canonical(there) != canonical(here):  # Python takes 1, 1.0 and true for equal
            yield key, there, here
        return
    for name in sorted(there.keys() | here.keys()):
        dotted = f"{key}.{name}" if key else name
        if name in there and name in here:
            yield from differences(there[name], here[name], dotted)
        else:
            yield dotted, there.get(name, MISSING), here.get(name, MISSING)


def side_by_side(there: Any, here: Any) -> str:
    """One line: `model.d: 64 there, 128 here; …`."""
    found = [f"{key}: {_short(old)} there, {_short(new)} here" for key, old, new in differences(there, here)]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join(found[:SHOWN] + more)


def _short(value: Any) -> str:
    text = value if value == MISSING else repr(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
