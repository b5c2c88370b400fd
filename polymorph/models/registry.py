"""Every architecture: the folders beside this file, each with one dataclass `ARCHITECTURE`."""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from polymorph import models
from polymorph.store import Cohort, CorruptError

if TYPE_CHECKING:
    from polymorph.models.architecture import Architecture


def _found() -> Mapping[str, type[Any]]:
    folders = (f"{models.__name__}.{info.name}" for info in iter_modules(models.__path__) if info.ispkg)
    return {kind.name: kind for kind in (import_module(name).ARCHITECTURE for name in sorted(folders))}


ARCHITECTURES = _found()
"""By the name under which a cohort states its own."""
TRAINED = {name: kind for name, kind in ARCHITECTURES.items() if hasattr(kind, "untrained")}
"""Those whose members are trained here: see `Trainable`."""


def architecture_of(cohort: Cohort) -> "Architecture":
    """The architecture that the cohort states; `CorruptError` if that is none of ours."""
    stated = cohort.identity["architecture"]
    kind = ARCHITECTURES.get(str(stated.get("name")))
    if kind is None:
        raise CorruptError(
            f"{cohort.folder}: architecture {stated.get('name')!r} is none of {', '.join(ARCHITECTURES)}"
        )
    try:
        architecture: Architecture = kind(**stated)
    except (TypeError, ValueError) as error:
        raise CorruptError(f"{cohort.folder}: {error}") from error
    return architecture
