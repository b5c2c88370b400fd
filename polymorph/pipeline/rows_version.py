"""The version of cached rows, from what they are made of: a family that is added makes another, by itself."""

from typing import Any

from polymorph.alignment.families import rungs
from polymorph.studies.registry import STUDIES


def rows_version(*studies: str) -> dict[str, Any]:
    """The version of each study that made them, and the families of maps, for a key."""
    return {"studies": {name: STUDIES[name].version for name in studies}, "families": rungs()}
