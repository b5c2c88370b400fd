"""The hub, played by a server of the test's own or not there at all."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from corpora import EVEN, jsonl, stories

from polymorph.errors import RequestError, RunError
from polymorph.tasks.text.config import TextConfig, TextShares, TextSplits
from polymorph.tasks.text.prepare import prepare
from polymorph.tasks.text.tokenizer import loaded, tokenizer_digest, trained

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = "hf download --repo-type dataset owner/name"
TEXTS = stories(40)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache; no setting of whoever runs the test is read, and nothing listens where the hub is."""
    for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    return tmp_path / "hub"


@pytest.fixture
def offline(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def answer(monkeypatch) -> Iterator[dict]:
    """A server that gives to everything the one answer set here, and notes what it was asked for."""
    said = {"status": 404, "code": "RepoNotFound", "asked": []}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said["asked"].append(self.path)
            self.send_response(said["status"])
            self.send_header("X-Error-Code", said["code"])
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield said
    server.shutdown()
    thread.join()
    server.server_close()


def config_of(**options) -> TextConfig:
    defaults = {"vocab_size": 300, "max_documents": 100, "shares": TextShares(**EVEN)}
    return TextConfig(source="hub", dataset="owner/name", **{**defaults, **options})


def fetched(
    cache: Path, files: dict[str, bytes], listed: list[str] | None = None, kind="datasets", ref="main"
) -> Path:
    """What `hf download` leaves: the files, the name of the commit, and the list of all files of it."""
    repository = cache / f"{kind}--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name, data in files.items():
        (snapshot / name).write_bytes(data)
    (repository / "refs").mkdir()
    (repository / "refs" / ref).write_text(COMMIT)
    (repository / "trees").mkdir()
    entries = {name: {"size": 1, "blob_id": COMMIT} for name in (listed or files)}
    (repository / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": entries}))
    return repository


def silent(_line: str) -> None:
    pass


def refused(config: TextConfig, folder: Path, said: str, kind: type[Exception] = RequestError) -> None:
    """With that message, soon, and with nothing left behind."""
    began = time.monotonic()
    with pytest.raises(kind, match=said):
        prepare(config, folder / "cohort", silent)
    assert time.monotonic() - began < 8  # the hub's own libraries try for most of a minute
    assert not (folder / "cohort").exists()


@pytest.mark.parametrize("key", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", None])
def test_without_a_network_the_command_that_fetches_is_named(tmp_path, monkeypatch, key):
    """Whether the user says so or nothing answers."""
    if key is not None:
        monkeypatch.setenv(key, "1")
    refused(config_of(), tmp_path, rf"task\.dataset=owner/name: .*: {FETCH}$")
    refused(
        config_of(dataset_revision="v1"),
        tmp_path,
        rf"task\.dataset=owner/name@v1: .*: {FETCH} --revision v1$",
    )


def test_offline_nothing_is_asked(tmp_path, offline, answer):
    refused(config_of(), tmp_path, FETCH)
    assert answer["asked"] == []


@pytest.mark.parametrize("code", ["RepoNotFound", "RevisionNotFound"])
def test_what_the_hub_does_not_have_is_said(tmp_path, answer, code):
    answer["code"] = code
    refused(
        config_of(dataset_revision="v1"), tmp_path, r"task\.dataset: the hub has no dataset owner/name@v1"
    )
    assert answer["asked"] == ["/api/datasets/owner/name/revision/v1"]


def test_a_hub_that_fails_is_one_that_cannot_be_reached(tmp_path, answer):
    answer |= {"status": 500, "code": "Broken"}
    refused(config_of(), tmp_path, FETCH)


@pytest.mark.parametrize(("revision", "ref"), [(None, "main"), ("v1", "v1"), (COMMIT, "main")])
def test_offline_a_dataset_that_was_fetched_is_read(tmp_path, cache, offline, revision, ref):
    fetched(cache, {"data.jsonl": jsonl(TEXTS)}, ref=ref)
    text = prepare(config_of(dataset_revision=revision), tmp_path / "cohort", silent)
    assert text.tokens.facts["documents"] == 40
    assert text.tokens.facts["characters"] == sum(map(len, TEXTS))
    assert text.tokens.facts["source"] == {
        "dataset": "owner/name",
        "revision": COMMIT,
        "config": None,
        "split": "train",
    }
    assert sum(text.tokens.documents(split) for split in TextSplits) == 40


def test_a_dataset_that_was_fetched_in_part_is_not_read(tmp_path, cache, offline):
    repository = fetched(cache, {"a.jsonl": jsonl(TEXTS)}, listed=["a.jsonl", "b.jsonl"])
    refused(config_of(), tmp_path, f"was not fetched whole; .*{FETCH}")
    (
        repository / "trees" / f"{COMMIT}.json"
    ).unlink()  # single files, fetched one by one: nobody knows of the rest
    huggingface_hub._tree_cache._IN_MEMORY_TREE_CACHE.clear()
    refused(config_of(), tmp_path, f"was not fetched whole; .*{FETCH}")


def test_another_revision_than_was_fetched_is_not_read(tmp_path, cache, offline):
    fetched(cache, {"data.jsonl": jsonl(TEXTS)}, ref="v1")
    refused(config_of(dataset_revision="v2"), tmp_path, f"{FETCH} --revision v2")
    refused(config_of(), tmp_path, FETCH)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text_column": "body"}, r"task\.text_column=body: owner/name, row 1 has only number, text"),
        ({"text_column": "number"}, r"task\.text_column=number: owner/name, row 1 has int there"),
        ({"dataset_split": "test"}, r"task\.dataset=owner/name cannot be opened: Bad split: test"),
        (
            {"dataset_config": "none"},
            r"task\.dataset=owner/name cannot be opened: BuilderConfig 'none' not found",
        ),
    ],
)
def test_what_the_dataset_does_not_have_is_said(tmp_path, cache, offline, options, said):
    rows = b"".join(json.dumps({"text": text, "number": 1}).encode() + b"\n" for text in TEXTS)
    fetched(cache, {"data.jsonl": rows})
    refused(config_of(**options), tmp_path, said)


def test_a_damaged_file_ends_the_reading(tmp_path, cache, offline):
    fetched(cache, {"data.jsonl": jsonl(TEXTS) + b'{"text": '})
    refused(config_of(), tmp_path, r"task\.dataset=owner/name: reading ended after 0 rows", RunError)


TOKENIZER = trained(TEXTS, 300)


@pytest.mark.parametrize("key", ["HF_HUB_OFFLINE", None])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("owner/name", "hf download owner/name --include"),
        ("owner/name@step3", "hf download owner/name --revision step3 --include"),
    ],
)
def test_a_tokenizer_that_was_not_fetched_is_named_with_its_command(
    tmp_path, monkeypatch, key, name, command
):
    if key is not None:
        monkeypatch.setenv(key, "1")
    began = time.monotonic()
    with pytest.raises(RequestError, match=rf"task\.tokenizer={name} cannot be opened; .*: {command}"):
        loaded(name)
    assert time.monotonic() - began < 8


def test_a_tokenizer_that_was_fetched_is_read_offline(cache, offline):
    model = {"config.json": b'{"model_type": "gpt_neox"}'}
    fetched(cache, {**TOKENIZER.files(), **model}, kind="models", ref="step3")
    found = loaded("owner/name@step3")
    assert tokenizer_digest(found.tokenizer) == tokenizer_digest(TOKENIZER.tokenizer)
    with pytest.raises(RequestError, match="--revision step4"):
        loaded("owner/name@step4")


def test_a_tokenizer_that_the_hub_does_not_have_is_said(answer):
    with pytest.raises(RequestError, match=r"task\.tokenizer: the hub has no model owner/name@step3"):
        loaded("owner/name@step3")


@pytest.mark.parametrize("name", ["no such name", "a/b/c"])
def test_what_is_no_name_of_a_repository_is_refused(name):
    with pytest.raises(RequestError, match=r"task\.tokenizer"):
        loaded(name)
