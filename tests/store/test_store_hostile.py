"""What others may have put into a cohort's folder, or given as a name, is refused or inert."""

import ast
import os
import pickle
import shutil
import socket
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from store_faults import IDENTITY, failing, replaced_calls, snapshot, weights_of

import polymorph.store
from polymorph.errors import RequestError
from polymorph.store import (
    Cohort,
    CorruptError,
    Member,
    Status,
    VersionError,
    check_name,
    check_writable,
    publication,
    publish,
    read,
)
from polymorph.store.canonical_json import digest, parse, readable
from polymorph.store.checksummed_json import seal
from polymorph.store.process_liveness import draft_name

SHA = "0" * 64


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["BOMB"],)


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is made if any pickle is loaded."""
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    return tmp_path / "exploded"


def test_the_bomb_works(bomb: Path) -> None:
    pickle.loads(pickle.dumps(Bomb()))
    assert bomb.exists()


@pytest.mark.parametrize(
    "name", ["weights.pt", "model.pkl", "last.ckpt", "pytorch_model.bin", "x.py", "data"]
)
def test_files_that_may_hold_a_pickle_are_refused(member: Member, bomb: Path, name: str) -> None:
    folder = member.folder / "steps" / "step-00000010"
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CorruptError, match=f"{name}.*may hold a pickle"):
        member.read_step(10)
    (folder / name).unlink()
    member.read_step(10)
    with pytest.raises(ValueError, match="may hold a pickle"):
        publish(folder.with_name("other"), {name: b""}, {})
    assert not bomb.exists()


def test_a_pickle_under_another_name_is_inert(tmp_path: Path, cohort: Cohort, bomb: Path) -> None:
    member = cohort.member(0)
    torch.save({"w": Bomb()}, tmp_path / "saved")
    for step, data in enumerate([pickle.dumps(Bomb()), (tmp_path / "saved").read_bytes()]):
        facts = {"seed": 0, "step": step, "kind": "step"}
        publish(
            member.folder / "steps" / f"step-{step:08d}", {"weights.safetensors": data}, facts, cohort.folder
        )
        with pytest.raises(CorruptError, match="is not safetensors"):
            member.read_step(step)
    assert not bomb.exists()


HEADERS = {
    "empty": b"",
    "huge": (1 << 62).to_bytes(8, "little") + b"{}",
    "not json": (8).to_bytes(8, "little") + b"xxxxxxxx",
    "deep": (80_000).to_bytes(8, "little") + b"[" * 80_000,
    "offsets": (64).to_bytes(8, "little")
    + b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'.ljust(64)
    + bytes(4),
    "overflow": (96).to_bytes(8, "little")
    + b'{"w":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]}}'.ljust(96)
    + bytes(4),
    "unknown type": (64).to_bytes(8, "little")
    + b'{"w":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}'.ljust(64)
    + bytes(4),
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS.keys())
def test_hostile_safetensors(cohort: Cohort, data: bytes) -> None:
    member, facts = cohort.member(0), {"seed": 0, "step": 1, "kind": "step"}
    publish(member.folder / "steps/step-00000001", {"weights.safetensors": data}, facts, cohort.folder)
    with pytest.raises(CorruptError, match="is not safetensors"):
        member.read_step(1)


ENTRY = {"size": 0, "sha256": SHA}
MANIFESTS = {
    "a path that climbs": ({"files": {"../../../cohort.json": ENTRY}, "facts": {}}, "no name"),
    "an absolute path": ({"files": {"/etc/hostname": ENTRY}, "facts": {}}, "no name"),
    "a hidden file": ({"files": {".x.json": ENTRY}, "facts": {}}, "no name"),
    "itself": ({"files": {"manifest.json": ENTRY}, "facts": {}}, "no name"),
    "a line break": ({"files": {"x\n.json": ENTRY}, "facts": {}}, "no name"),
    "a long name": ({"files": {"x" * 300 + ".json": ENTRY}, "facts": {}}, "no name"),
    "a pickle": ({"files": {"x.pkl": ENTRY}, "facts": {}}, "may hold a pickle"),
    "a huge size": ({"files": {"weights.safetensors": {"size": 2**80, "sha256": SHA}}, "facts": {}}, "bytes"),
    "a negative size": ({"files": {"x.json": {"size": -1, "sha256": SHA}}, "facts": {}}, "size"),
    "a size that is true": ({"files": {"x.json": {"size": True, "sha256": SHA}}, "facts": {}}, "size"),
    "no digest": ({"files": {"x.json": {"size": 0}}, "facts": {}}, "SHA-256"),
    "no facts": ({"files": {}}, "no facts"),
    "files that are a list": ({"files": [], "facts": {}}, "no files"),
    "a missing file": ({"files": {"other.json": ENTRY}, "facts": {}}, "other.json is missing|not published"),
    "another major version": ({"schema": "2.0", "files": {}, "facts": {}}, r"version 2\.0.*reads 1\.0"),
    "a version of another kind": ({"schema": 1, "files": {}, "facts": {}}, "no schema version"),
}


@pytest.mark.parametrize(("content", "problem"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_hostile_manifests(member: Member, content: dict[str, object], problem: str) -> None:
    path = member.folder / "steps/step-00000010/manifest.json"
    path.write_bytes(seal(content))
    with pytest.raises(CorruptError, match=problem):
        member.read_step(10)
    assert member.steps() == [10]  # it is listed, so that who is left out can be said


JSON = {
    "deep lists": b"[" * 200_000 + b"]" * 200_000,
    "a bit too deep": b"[" * 66 + b"]" * 66,
    "a key twice": b'{"a": 1, "a": 2}',
    "nan": b'{"a": NaN}',
    "an infinite number": b'{"a": 1e999}',
    "a huge whole number": b"9" * 100_000,
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "not utf-8": b'{"a": "\xff"}',
    "too long": b'"' + b"x" * (1 << 22) + b'"',
    "nothing": b"",
    "pickle": pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("data", JSON.values(), ids=JSON.keys())
def test_hostile_json(data: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^x\.json "):
        parse(data, Path("x.json"))


def test_harmless_json() -> None:
    assert parse(b"[" * 60 + b"]" * 60, Path("x")) is not None
    assert parse(readable({"a": [1, 2.5, None, True, "é"]}), Path("x")) == {"a": [1, 2.5, None, True, "é"]}


def test_minor_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    document = seal({"schema": "1.7", "files": {}, "facts": {"a": 1}, "added": "later"})
    (tmp_path / "later" / "manifest.json").write_bytes(document)
    assert read(tmp_path / "later").manifest.facts == {"a": 1}


def test_another_major_version_is_refused_and_kept(cohort: Cohort, member: Member) -> None:
    manifest = member.folder / "steps/step-00000010/manifest.json"
    manifest.write_bytes(seal({"schema": "7.1", "files": {}, "facts": {}}))
    with pytest.raises(VersionError, match=r"version 7\.1.*reads 1\.0"):
        member.publish_step(10, weights_of(10), {"config": "c"})
    assert manifest.exists()
    (cohort.folder / "cohort.json").write_bytes(seal({"schema": "3.0", **IDENTITY}))
    with pytest.raises(VersionError, match=r"cohort\.json is of schema version 3\.0.*reads 1\.0"):
        Cohort.open(cohort.folder)


def test_nothing_is_interpolated(cohort: Cohort) -> None:
    config = {
        "a": "${oc.env:HOME}",
        "b": {"_target_": "os.system", "_args_": ["true"]},
        "c": "!!python/object",
    }
    member = cohort.member(0)
    member.write_config(config)
    assert member.config() == config
    member.append_row(config)
    assert member.rows() == [config]


def test_links_are_not_followed(tmp_path: Path, cohort: Cohort, member: Member) -> None:
    step = member.folder / "steps/step-00000010"
    (step / "weights.safetensors").rename(tmp_path / "outside")
    (step / "weights.safetensors").symlink_to(tmp_path / "outside")
    with pytest.raises(CorruptError, match="symbolic link"):
        member.read_step(10)
    (step / "weights.safetensors").unlink()
    (tmp_path / "outside").rename(step / "weights.safetensors")
    member.read_step(10)
    dead = "-".join([*draft_name().split("-")[:3], "1", "abcd"])  # sweeping would remove it
    for inner in (step, member.folder / "steps", member.folder, cohort.folder / "members"):
        inner.rename(tmp_path / "moved")
        inner.symlink_to(tmp_path / "moved")
        with pytest.raises(CorruptError, match="symbolic link"):
            member.read_step(10)
        (tmp_path / "moved" / dead).write_text("half")
        outside = snapshot(tmp_path / "moved")
        if inner != step:
            with pytest.raises(CorruptError, match="symbolic link"):
                member.publish_step(10, weights_of(10), {"config": "c"})
            with pytest.raises(CorruptError, match="symbolic link"):
                publication.remove(step, cohort.folder)
            with suppress(CorruptError):  # not followed where it is not refused
                member.sweep()
        else:  # the link itself is set aside like anything else that was not published
            member.publish_step(10, weights_of(10), {"config": "c"})
            shutil.rmtree(inner)
            inner.symlink_to(tmp_path / "moved")
        assert snapshot(tmp_path / "moved") == outside
        inner.unlink()
        (tmp_path / "moved" / dead).unlink()
        (tmp_path / "moved").rename(inner)
    cohort.folder.rename(tmp_path / "elsewhere")
    cohort.folder.symlink_to(tmp_path / "elsewhere")  # the cohort itself may be anywhere
    member.read_step(10)


def test_only_regular_files_are_read(member: Member) -> None:
    path = member.folder / "status.json"
    os.mkfifo(path)  # opening it must not wait for a writer
    with pytest.raises(CorruptError, match="not a regular file"):
        member.status()
    path.unlink()
    path.mkdir()
    with pytest.raises(CorruptError, match="not a regular file"):
        member.status()
    path.rmdir()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorruptError, match="1099511627776 bytes"):
        member.status()


BAD_NAMES = [
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "../x",
    "a b",
    "a\n",
    "a\0b",
    "é",
    "$x",
    "<b>",
    "x" * 101,
    "~",
    "*",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_hostile_names(name: str) -> None:
    with pytest.raises(RequestError, match=r"^cohort\.name=.*letters, digits") as error:
        check_name(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a", "dyck3-quick-independent", "planted-rotated", "A_1.2", "x" * 100, "0"])
def test_good_names(name: str, tmp_path: Path) -> None:
    assert check_name(name) == name
    assert Cohort.create(tmp_path / name, IDENTITY).name == name


def test_only_canonical_names_are_members_and_steps(cohort: Cohort, member: Member) -> None:
    for name in ("seed-3", "seed-00003", "seed-000３", "seed-0004.bak", ".seed-0005", "seed--001"):
        (cohort.folder / "members" / name).mkdir()
    (member.folder / "steps" / "step-00000020").mkdir()  # without a manifest
    (member.folder / "steps" / ".draft-x").mkdir()
    assert [one.seed for one in cohort.members()] == [3]
    assert member.steps() == [10]
    assert [cohort.member(seed).name for seed in (0, 7, 12345)] == ["seed-0000", "seed-0007", "seed-12345"]
    for seed in (-1, True, 1.0, "1"):
        with pytest.raises(ValueError, match="whole number"):
            _ = cohort.member(seed).name


def test_status_is_checked(member: Member) -> None:
    assert member.status() is None
    with pytest.raises(ValueError, match="state='done' is none of"):
        Status("done")
    for change in ({"state": "done"}, {"step": -1}, {"reason": None}, {"stack": ["a"]}, {"state": ["x"]}):
        content = {"state": "completed", "step": 1, "reason": "", "stack": [3], **change}
        (member.folder / "status.json").write_bytes(seal(content))
        with pytest.raises(CorruptError, match=r"status\.json"):
            member.status()


def test_the_folder_must_be_writable(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match=r"cohort\.root: .*file/below cannot be written"):
        check_writable(tmp_path / "file" / "below")

    def denied(name: str, call: object) -> object:
        return (lambda *arguments: failing(13)(call, arguments)) if name == "open_new" else call

    with replaced_calls(denied), pytest.raises(RequestError, match="Permission denied"):
        check_writable(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    for mask, file_mode, folder_mode in ((0o022, 0o644, 0o755), (0o077, 0o600, 0o700)):
        before = os.umask(mask)
        try:
            member = Cohort.create(tmp_path / f"c{mask}", IDENTITY).member(0)
            member.publish_step(1, weights_of(1), {})
            member.set_status(Status("running"))
        finally:
            os.umask(before)
        for path in (tmp_path / f"c{mask}").rglob("*"):
            assert path.stat().st_mode & 0o777 == (folder_mode if path.is_dir() else file_mode)


FORBIDDEN_CALLS = {
    "open", "exists", "is_file", "is_dir", "is_symlink", "read_bytes", "read_text", "write_bytes",
    "write_text", "mkdir", "rmdir", "unlink", "rename", "replace", "iterdir", "glob", "rglob", "stat",
    "lstat", "resolve", "touch", "symlink_to", "hardlink_to", "chmod", "readlink", "absolute",
}  # fmt: skip
OWN = {"files", "safe_read", "durable", "cls", "publication", "Cohort"}


def test_only_one_module_touches_the_file_system() -> None:
    for path in Path(polymorph.store.__file__).parent.glob("*.py"):
        if path.name == "files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {name.name for name in node.names} & {"os", "shutil", "tempfile", "io", "pickle"}
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                assert {name.name for name in node.names} <= {"getpid", "kill"}
            if isinstance(node, ast.Call):
                assert not _touches(node.func), f"{path.name}:{node.lineno}"


def _touches(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id == "open"
    if not isinstance(function, ast.Attribute) or function.attr not in FORBIDDEN_CALLS:
        return False
    text_replace = function.attr == "replace" and not isinstance(function.value, ast.Name)
    return not text_replace and not (isinstance(function.value, ast.Name) and function.value.id in OWN)


def test_the_check_of_the_modules_sees_a_call() -> None:
    seen = [node for node in ast.walk(ast.parse("path.exists(); open('x')")) if isinstance(node, ast.Call)]
    assert all(_touches(node.func) for node in seen)
    assert not _touches(ast.parse("files.stat(x)", mode="eval").body.func)


def test_digests_are_of_content() -> None:
    assert digest({"a": 1, "b": [1.5]}) == digest({"b": (1.5,), "a": 1})
    assert len({digest(value) for value in (1, 1.0, True, "1", None, [1])}) == 6
    for value in ({1: "a"}, {"a": {1, 2}}, float("nan"), b"x", socket.AF_INET.__class__):
        with pytest.raises(ValueError, match=r"not plain data|no place in JSON|not a text"):
            digest(value)
