"""A member's SAEs: published folders, one for a step, a site and a name. What is in their files is not known here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymorph.store import files, publication, safe_read
from polymorph.store.errors import CorruptError, reading
from polymorph.store.manifest import Manifest
from polymorph.store.names import NAME, check_name, step_name, step_of
from polymorph.store.publication import Published


@dataclass(frozen=True)
class SAEShelf:
    """Every folder on it states whose it is and where it belongs, so a misplaced copy is noticed."""

    folder: Path
    root: Path
    seed: int

    def path(self, step: int, site: str, name: str) -> Path:
        """`RequestError` for a site or a name that could lead elsewhere."""
        return self.folder / step_name(step) / check_name(site, "site") / check_name(name, "name")

    def holds(self, step: int, site: str, name: str) -> bool:
        return safe_read.exists(self.path(step, site, name))

    def places(self) -> list[tuple[int, str, str]]:
        """(step, site, name) of all that looks published, in order; reading it verifies it."""
        steps = [(step, name) for name in _names(self.folder) if (step := step_of(name)) is not None]
        sites = [(step, site) for step, name in steps for site in _names(self.folder / name)]
        places = [(step, site, name) for step, site in sites for name in _names(self._site(step, site))]
        return sorted(place for place in places if publication.is_published(self.path(*place)))

    def _site(self, step: int, site: str) -> Path:
        return self.folder / step_name(step) / site

    def publish(
        self, step: int, site: str, name: str, contents: Mapping[str, bytes], facts: Mapping[str, Any]
    ) -> Manifest:
        whole = {**facts, **self._own(step, site, name)}
        return publication.publish_again(self.path(step, site, name), contents, whole, self.root)

    def read(self, step: int, site: str, name: str) -> Published:
        path = self.path(step, site, name)
        published = publication.read(path, self.root)
        for key, value in self._own(step, site, name).items():
            if (found := published.manifest.facts.get(key)) != value:
                raise CorruptError(f"{path} was published as {key} {found!r}, not {value!r}")
        return published

    def set_aside(self, step: int, site: str, name: str) -> None:
        publication.set_aside(self.path(step, site, name), self.root, publication.SUPERSEDED)

    def _own(self, step: int, site: str, name: str) -> dict[str, Any]:
        return {"kind": "sae", "seed": self.seed, "step": step, "site": site, "name": name}


def _names(folder: Path) -> list[str]:
    """What may be a name of ours: drafts, and what was set aside, start with a dot."""
    if not safe_read.is_folder(folder):
        return []
    with reading(folder):
        return [name for name in files.names(folder) if NAME.fullmatch(name)]
