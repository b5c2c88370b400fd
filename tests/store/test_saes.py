"""SAEs of members on disk: whole or not there, and where they were published."""

import itertools
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from store_faults import (
    IDENTITY,
    KILLED,
    at_call,
    calls_of,
    drafts,
    in_child,
    kill_after,
    kill_amid,
    kill_before,
    snapshot,
)

from polymorph.errors import RequestError
from polymorph.store import Cohort, ConflictError, CorruptError, Member
from polymorph.store.process_liveness import draft_name

SITE, NAME = "blocks.0.hook_resid_mid", "standard_x8"
PLACE = (10, SITE, NAME)
FILES = {"cfg.json": b'{"d_in": 4}', "sae_weights.safetensors": bytes(range(200))}
FACTS = {"family": NAME, "variant": "distinct", "sae_seed": 7}
OWN = {"kind": "sae", "seed": 3, "step": 10, "site": SITE, "name": NAME}


@pytest.fixture
def published(cohort: Cohort) -> Member:
    member = cohort.member(3)
    member.publish_sae(*PLACE, FILES, FACTS)
    return member


def test_what_was_published_is_read(published: Member) -> None:
    read = published.read_sae(*PLACE)
    assert dict(read.files) == FILES
    assert read.manifest.facts == {**FACTS, **OWN}
    folder = published.folder / "saes/step-00000010/blocks.0.hook_resid_mid/standard_x8"
    assert published.sae_path(*PLACE) == folder
    assert {path.name for path in folder.iterdir()} == {*FILES, "manifest.json"}


def test_the_facts_of_the_place_are_the_store_s(cohort: Cohort) -> None:
    """Whatever the maker says of them."""
    cohort.member(3).publish_sae(*PLACE, FILES, {"seed": 4, "kind": "step", "site": "x"})
    assert cohort.member(3).read_sae(*PLACE).manifest.facts == OWN


def test_again_is_benign_and_other_content_is_not(published: Member) -> None:
    before = snapshot(published.folder)
    assert (
        published.publish_sae(*PLACE, dict(reversed(FILES.items())), FACTS)
        == published.read_sae(*PLACE).manifest
    )
    for files, facts in (({**FILES, "cfg.json": b"{}"}, FACTS), (FILES, {**FACTS, "sae_seed": 8})):
        with pytest.raises(ConflictError, match="was published with digest"):
            published.publish_sae(*PLACE, files, facts)
    assert snapshot(published.folder) == before


def test_a_damaged_one_is_set_aside(published: Member) -> None:
    path = published.sae_path(*PLACE) / "cfg.json"
    path.write_bytes(b'{"d_in": 5}')
    published.publish_sae(*PLACE, FILES, FACTS)
    assert dict(published.read_sae(*PLACE).files) == FILES
    assert published.saes() == [PLACE]
    assert len(list(path.parent.parent.glob(f".corrupt-{NAME}*"))) == 1


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_no_altered_byte_is_accepted(published: Member, name: str) -> None:
    path = published.sae_path(*PLACE) / name
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(CorruptError, match=path.name):
            published.read_sae(*PLACE)
    path.write_bytes(whole)
    published.read_sae(*PLACE)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_refused(published: Member, name: str) -> None:
    (published.sae_path(*PLACE) / name).unlink()
    assert published.has_sae(*PLACE)
    with pytest.raises(CorruptError, match=f"{name} is missing"):
        published.read_sae(*PLACE)


@pytest.mark.parametrize("name", ["weights.pt", "cfg.pkl", "more.json", "runner.py"])
def test_an_added_file_is_refused(published: Member, name: str) -> None:
    (published.sae_path(*PLACE) / name).write_bytes(pickle.dumps({}))
    with pytest.raises(CorruptError, match=f"{name}', which was not published"):
        published.read_sae(*PLACE)


def test_what_may_be_a_pickle_is_not_published(cohort: Cohort) -> None:
    with pytest.raises(ValueError, match="may hold a pickle"):
        cohort.member(3).publish_sae(*PLACE, {**FILES, "state.pt": b""}, FACTS)
    assert cohort.member(3).saes() == []


ELSEWHERE = {
    "seed": (4, PLACE),
    "step": (3, (11, SITE, NAME)),
    "site": (3, (10, "blocks.1.hook_resid_mid", NAME)),
    "name": (3, (10, SITE, "standard_x16")),
}


@pytest.mark.parametrize("key", ELSEWHERE)
def test_swapped_folders_are_refused(published: Member, cohort: Cohort, key: str) -> None:
    seed, place = ELSEWHERE[key]
    other = cohort.member(seed)
    other.publish_sae(*place, FILES, FACTS)
    aside = cohort.folder / "aside"
    published.sae_path(*PLACE).rename(aside)
    other.sae_path(*place).rename(published.sae_path(*PLACE))
    aside.rename(other.sae_path(*place))
    for member, there in ((published, PLACE), (other, place)):
        with pytest.raises(CorruptError, match=f"was published as {key} .*, not"):
            member.read_sae(*there)


def test_a_step_in_the_place_of_an_sae_is_refused(cohort: Cohort, member: Member) -> None:
    path = member.sae_path(*PLACE)
    path.parent.mkdir(parents=True)
    (member.folder / "steps/step-00000010").rename(path)
    with pytest.raises(CorruptError, match="was published as kind 'step', not 'sae'"):
        member.read_sae(*PLACE)


BAD = ["", ".", "..", "../x", "a/b", "/abs", ".hidden", "a b", "a\0b", "é", "x" * 101, "a\n"]


@pytest.mark.parametrize("bad", BAD)
def test_no_name_leads_elsewhere(cohort: Cohort, bad: str) -> None:
    before = snapshot(cohort.folder)
    member = cohort.member(3)
    for key, place in (("site", (10, bad, NAME)), ("name", (10, SITE, bad))):
        for call in (
            lambda place=place: member.publish_sae(*place, FILES, FACTS),
            lambda place=place: member.read_sae(*place),
            lambda place=place: member.sae_path(*place),
            lambda place=place: member.has_sae(*place),
        ):
            with pytest.raises(RequestError, match=f"^{key}="):
                call()
    with pytest.raises(ValueError, match="whole number"):
        member.sae_path(-1, SITE, NAME)
    assert snapshot(cohort.folder) == before


def test_links_are_not_followed(published: Member, tmp_path: Path) -> None:
    path = published.sae_path(*PLACE)
    for inner in (path, path.parent, path.parent.parent, published.folder / "saes"):
        inner.rename(tmp_path / "moved")
        inner.symlink_to(tmp_path / "moved")
        with pytest.raises(CorruptError, match="symbolic link"):
            published.read_sae(*PLACE)
        inner.unlink()
        (tmp_path / "moved").rename(inner)
    published.read_sae(*PLACE)


def test_the_list_is_sorted(cohort: Cohort) -> None:
    member = cohort.member(3)
    assert member.saes() == []
    places = [(200, SITE, "b"), (30, SITE, "a"), (200, SITE, "a"), (200, "blocks.0.hook_resid_post", "a")]
    for place in places:
        member.publish_sae(*place, FILES, FACTS)
    assert member.saes() == sorted(places)
    assert cohort.member(4).saes() == []


def test_the_list_passes_over_drafts_and_junk(published: Member) -> None:
    saes, site = published.folder / "saes", published.sae_path(*PLACE).parent
    for folder in (
        site / draft_name(),
        site / ".corrupt-x",
        site / "a name",
        site.parent / ".hidden" / NAME,
        saes / "step-10" / SITE / NAME,
        saes / ".step-00000010" / SITE / NAME,
        saes / "notes",
    ):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    (site / "without_a_manifest").mkdir()
    for file in (saes / "step-00000020", site.parent / "file", site / "file"):
        file.write_text("junk")
    assert published.saes() == [PLACE]


def undisturbed(cohort: Cohort) -> tuple[list[str], dict[str, bytes]]:
    calls = calls_of(lambda: cohort.member(3).publish_sae(*PLACE, FILES, FACTS))
    return calls, snapshot(cohort.folder)


def all_or_nothing(member: Member) -> bool:
    """Whether it can be seen; whatever can be seen is whole."""
    for place in member.saes():
        assert dict(member.read_sae(*place).files) == FILES
    return member.saes() == [PLACE]


@pytest.mark.parametrize("whose", ["member", "cohort"])
def test_killed_at_every_call(tmp_path: Path, whose: str) -> None:
    calls, done = undisturbed(Cohort.create(tmp_path / "undisturbed" / "dyck", IDENTITY))
    visible, left = set(), 0
    for index, fault in itertools.product(range(len(calls)), [kill_before, kill_amid, kill_after]):
        if fault is kill_amid and calls[index] != "write":
            continue
        cohort = Cohort.create(tmp_path / "dyck", IDENTITY)
        member = cohort.member(3)

        def act(member: Member = member, index: int = index, fault: Callable[..., None] = fault) -> None:
            with at_call(index, fault):
                member.publish_sae(*PLACE, FILES, FACTS)

        assert in_child(act) == KILLED
        visible.add(all_or_nothing(member))
        left += len(drafts(cohort.folder))
        (member if whose == "member" else cohort).sweep()
        assert drafts(cohort.folder) == []
        member.publish_sae(*PLACE, FILES, FACTS)
        assert snapshot(cohort.folder) == done
        shutil.rmtree(cohort.folder)
    assert visible == {False, True}
    assert left > 0  # there was something to sweep


def test_of_two_writers_the_second_finds_the_first(cohort: Cohort) -> None:
    """One that got its name between the look and the rename: equal is benign, other is told."""
    from polymorph.store import publication

    member = cohort.member(3)
    member.publish_sae(*PLACE, FILES, FACTS)
    with mock.patch.object(publication.safe_read, "exists", lambda path: path == cohort.folder):
        member.publish_sae(*PLACE, FILES, FACTS)
        with pytest.raises(ConflictError):
            member.publish_sae(*PLACE, {**FILES, "cfg.json": b"{}"}, FACTS)
    assert dict(member.read_sae(*PLACE).files) == FILES
    assert drafts(cohort.folder) == []


def test_modes_are_those_of_every_published_file(published: Member) -> None:
    before = os.umask(0o022)
    os.umask(before)
    for path in published.sae_path(*PLACE).iterdir():
        assert path.stat().st_mode & 0o777 == 0o644 & ~before
