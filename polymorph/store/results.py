"""What an analysis leaves: files that can be made again, replaced whole, and a record of what made them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymorph.errors import RequestError
from polymorph.store import durable, safe_read
from polymorph.store.canonical_json import LARGEST, sha256
from polymorph.store.checksummed_json import seal, unseal
from polymorph.store.errors import CorruptError, VersionError, writing
from polymorph.store.names import check_name

RECORD = "made_from.json"
_LARGEST_RESULT = 1 << 32


@dataclass(frozen=True)
class Results:
    """The folder `analysis/<name>` of the cohort in folder `cohort`."""

    cohort: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.cohort / "analysis" / check_name(self.name)

    def write(
        self, files: Mapping[str, bytes], key: str, studies: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Replace the files one by one, then record that they follow from `key` (a digest of all inputs).

        `studies` says of every study what its own rows follow from, as plain data, for whoever comes next.
        """
        safe_read.check_inside(self.folder / RECORD, self.cohort)
        with writing(self.folder):
            durable.make_parents(self.folder)
            for name, data in files.items():
                durable.replace_file(self.folder / check_name(name), data)
            digests = {name: sha256(data) for name, data in files.items()}
            durable.replace_file(
                self.folder / RECORD, seal({"key": key, "files": digests, "studies": studies or {}})
            )

    def add(self, files: Mapping[str, bytes], folder: str | None = None) -> None:
        """Files that are made from the results and can be made again at any time; they are in no record."""
        place = self.folder if folder is None else self.folder / check_name(folder)
        for name, data in files.items():
            safe_read.check_inside(place / check_name(name), self.cohort)
            with writing(place):
                durable.make_parents(place)
                durable.replace_file(place / name, data)

    def made_from(self, key: str) -> bool:
        """Whether the files are there, as they were written, and follow from `key`.

        `VersionError` where a newer program wrote them: they are not to be replaced by older ones.
        """
        try:
            if not safe_read.exists(self.folder / RECORD):
                return False
            record = self._record()
            return record["key"] == key and all(
                self._is_as_written(name, expected) for name, expected in record["files"].items()
            )
        except VersionError:
            raise
        except (CorruptError, RequestError):
            return False

    def studies(self) -> Mapping[str, Mapping[str, Any]]:
        """What was recorded of every study; nothing where there is no analysis, or its record is damaged."""
        try:
            found = self._record().get("studies") if safe_read.exists(self.folder / RECORD) else None
        except VersionError:
            raise
        except (CorruptError, RequestError):
            return {}
        return found if isinstance(found, dict) else {}

    def written(self) -> list[str]:
        """The names of the files of the last analysis; `CorruptError` without one."""
        return sorted(self._record()["files"])

    def read(self, name: str) -> bytes:
        """One of them; `CorruptError` where it is not as it was written."""
        path = self.folder / check_name(name)
        safe_read.check_inside(path, self.cohort)
        data = safe_read.read_whole(path, _LARGEST_RESULT)
        if sha256(data) != self._record()["files"].get(name):
            raise CorruptError(f"{path} is not as the analysis wrote it; analyse again")
        return data

    def _record(self) -> dict[str, Any]:
        path = self.folder / RECORD
        safe_read.check_inside(path, self.cohort)
        record = unseal(safe_read.read_whole(path, LARGEST), path)
        if not isinstance(record.get("key"), str) or not isinstance(record.get("files"), dict):
            raise CorruptError(f"{path} is no record of an analysis")
        return record

    def _is_as_written(self, name: str, expected: str) -> bool:
        return sha256(safe_read.read_whole(self.folder / check_name(name), _LARGEST_RESULT)) == expected
