"""The architectures that there are, by the name under which a cohort states its own."""

from collections.abc import Mapping
from typing import Any

from polymorph.models.architecture import Architecture
from polymorph.models.config import TRAINED
from polymorph.models.pretrained import PretrainedArchitecture

ARCHITECTURES: dict[str, type[Any]] = {**TRAINED, "pretrained": PretrainedArchitecture}


def architecture_of(stated: Mapping[str, Any]) -> Architecture:
    """The architecture that a cohort states; `ValueError` if it is none of ours."""
    kind = ARCHITECTURES.get(str(stated.get("name")))
    if kind is None:
        raise ValueError(f"architecture {stated.get('name')!r} is none of {', '.join(ARCHITECTURES)}")
    architecture: Architecture = kind(**stated)
    return architecture
