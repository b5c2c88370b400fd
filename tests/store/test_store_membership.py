"""Members of another config, cohorts of another identity, and the leftovers of the dead."""

import os
from pathlib import Path

import pytest
from store_faults import IDENTITY, snapshot, start_child, weights_of

from polymorph.errors import RequestError
from polymorph.store import Cohort, CorruptError, Member, sweep
from polymorph.store.process_liveness import draft_name, home, lives, owner_lives, started

CONFIG = {"model": {"d": 64, "heads": 4}, "lr": 0.001, "cohort": {"name": "dyck"}}


def test_a_member_of_another_config_is_refused(cohort: Cohort) -> None:
    member = cohort.member(0)
    member.write_config(CONFIG)
    member.write_config(dict(reversed(CONFIG.items())))  # the order of keys says nothing
    before = snapshot(cohort.folder)
    changed = {**CONFIG, "model": {"d": 128, "heads": 4}, "extra": True}
    with pytest.raises(RequestError) as error:
        member.write_config(changed)
    message = str(error.value)
    assert "extra: nothing there, True here; model.d: 64 there, 128 here" in message
    assert "another cohort.name" in message
    assert "heads" not in message
    assert "\n" not in message
    assert snapshot(cohort.folder) == before


def test_kinds_of_numbers_are_told_apart(cohort: Cohort) -> None:
    cohort.member(0).write_config({"a": [1, {"b": 1}]})
    with pytest.raises(RequestError, match=r"a: \[1, \{'b': 1\}\] there, \[1, \{'b': True\}\] here"):
        cohort.member(0).write_config({"a": [1, {"b": True}]})


def test_a_config_must_be_plain(cohort: Cohort) -> None:
    for config in ({"lr": float("nan")}, {"path": Path("x")}, {1: 2}):
        with pytest.raises(RequestError, match="not plain data"):
            cohort.member(0).write_config(config)
    assert not cohort.member(0).has_config()
    with pytest.raises(CorruptError, match=r"config\.json is missing"):
        cohort.member(0).config()


@pytest.mark.parametrize("part", IDENTITY)
def test_a_cohort_of_another_identity_is_refused(cohort: Cohort, part: str) -> None:
    before = snapshot(cohort.folder)
    with pytest.raises(RequestError) as error:
        Cohort.create(cohort.folder, {**IDENTITY, part: {**IDENTITY[part], "layers": 7}})
    assert f"a cohort of another {part}: {part}.layers: nothing there, 7 here" in str(error.value)
    assert "\n" not in str(error.value)
    assert snapshot(cohort.folder) == before
    assert Cohort.create(cohort.folder, IDENTITY) == Cohort.open(str(cohort.folder)) == cohort


def test_an_identity_is_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an identity has the keys"):
        Cohort.create(tmp_path / "dyck", {"task": {}})
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"is not a cohort: it holds no cohort\.json"):
        Cohort.open(tmp_path / "nothing")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cohort.json").write_text("{}")
    with pytest.raises(CorruptError, match=r"cohort\.json states no schema version"):
        Cohort.open(tmp_path / "broken")


def test_members_are_sorted(cohort: Cohort) -> None:
    for seed in (10, 2, 12345, 0):
        cohort.member(seed).write_config({})
    assert [member.seed for member in cohort.members()] == [0, 2, 10, 12345]
    assert cohort.member(2) in cohort.members()


def draft_of_child(folder: Path, pipe: tuple[int, int] | None = None) -> tuple[Path, int]:
    """A draft that a child has made; the child lives until `pipe` is closed, or is dead and reaped."""
    told, tell = os.pipe()

    def act() -> None:
        name = draft_name()
        (folder / name).mkdir()
        (folder / name / "half.json").write_text("{")
        os.write(tell, name.encode())
        if pipe is not None:
            os.close(pipe[1])  # or it would outlive a test that fails
            os.read(pipe[0], 1)

    child = start_child(act)
    name = os.read(told, 200).decode()
    os.close(told)
    os.close(tell)
    if pipe is None:
        os.waitpid(child, 0)
    return folder / name, child


def test_leftovers_of_the_dead_are_swept_and_of_the_living_not(cohort: Cohort, member: Member) -> None:
    steps = member.folder / "steps"
    saes = member.folder / "saes" / "step-00000010" / "blocks.0.hook_resid_mid"
    saes.mkdir(parents=True)
    dead = [draft_of_child(folder)[0] for folder in (steps, cohort.folder, saes)]
    pipe = os.pipe()
    living, child = draft_of_child(steps, pipe)
    own = steps / draft_name()
    own.mkdir()
    assert set(member.sweep()) == {dead[0].name, dead[2].name}
    assert cohort.sweep() == [dead[1].name]
    assert [path.exists() for path in (*dead, living, own)] == [False, False, False, True, True]
    for end in pipe:
        os.close(end)
    os.waitpid(child, 0)
    assert sweep(steps) == [living.name]
    assert member.steps() == [10]
    assert own.exists()


def test_a_process_that_is_not_reaped_is_dead(tmp_path: Path) -> None:
    child = start_child(lambda: None)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert started(child) == "ended"
    assert not lives(child, "123")
    os.waitpid(child, 0)


def test_a_later_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    mine = draft_name()
    assert owner_lives(mine) is True
    parts = mine.split("-")
    other = "-".join([*parts[:3], "1", parts[4]])
    assert owner_lives(other) is False
    (tmp_path / other).write_text("half")
    (tmp_path / mine).write_text("half")
    assert sweep(tmp_path) == [other]
    assert [path.name for path in tmp_path.iterdir()] == [mine]


@pytest.mark.parametrize("name", [".draft-0123456789ab-1-2-abcd", ".draft-x", f".draft-{home()}-x-2-abcd"])
def test_of_another_host_only_old_leftovers_are_swept(tmp_path: Path, name: str) -> None:
    assert owner_lives(name) is None
    (tmp_path / name).write_text("half")
    assert sweep(tmp_path) == []
    now = (tmp_path / name).stat().st_mtime
    os.utime(tmp_path / name, (now - 23 * 3600, now - 23 * 3600))
    assert sweep(tmp_path) == []
    os.utime(tmp_path / name, (now - 25 * 3600, now - 25 * 3600))
    assert sweep(tmp_path) == [name]
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_swept(tmp_path: Path, member: Member) -> None:
    before = snapshot(member.cohort)
    (member.folder / ".notes").write_text("mine")
    assert member.sweep() == []
    assert (member.folder / ".notes").exists()
    assert sweep(tmp_path / "missing") == []
    assert snapshot(member.cohort).keys() == before.keys() | {"members/seed-0003/.notes"}


def test_a_writer_whose_draft_was_swept_says_so(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a living one, believed dead: it either publishes whole or nothing."""
    from polymorph.store import files, leftovers

    original = files.rename

    def swept_first(source: Path, target: Path) -> None:
        monkeypatch.setattr(files, "rename", original)
        monkeypatch.setattr(leftovers, "owner_lives", lambda name: False)
        assert cohort.sweep() == [source.name]
        original(source, target)

    monkeypatch.setattr(files, "rename", swept_first)
    with pytest.raises(RuntimeError, match="could not be written: No such file"):
        cohort.member(0).publish_step(1, weights_of(1), {})
    assert cohort.member(0).steps() == []
