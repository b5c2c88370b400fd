"""Bytes that changed after they were published are never taken for what was published."""

import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from store_faults import IDENTITY, equal, failing, replaced_calls, weights_of

from polymorph.store import Cohort, CorruptError, Member, Status, UnreadableError
from polymorph.store.tensors import from_bytes, to_bytes

FLIPS, TRUNCATIONS = 500, 100


def refused(member: Member, step: int) -> bool:
    try:
        member.read_step(step)
    except CorruptError:
        return True
    return False


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def loads(data: bytes) -> bool:
    try:
        safetensors.torch.load(data)
    except Exception:  # whatever it may be, it was noticed
        return False
    return True


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_no_flipped_bit_is_accepted(member: Member, name: str) -> None:
    path = member.folder / "steps" / "step-00000010" / name
    whole = path.read_bytes()
    noticed_by_the_format = 0
    for bit in random.Random(0).sample(range(8 * len(whole)), FLIPS):
        path.write_bytes(flipped(whole, bit))
        noticed_by_the_format += not loads(path.read_bytes())
        assert refused(member, 10), f"bit {bit} of {name}"
    if name == "weights.safetensors":
        assert noticed_by_the_format < FLIPS  # the digest is needed: the format alone lets wrong weights pass
    path.write_bytes(whole)
    assert equal(member.read_step(10).weights, weights_of(10))


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_no_truncation_is_accepted(member: Member, name: str) -> None:
    path = member.folder / "steps" / "step-00000010" / name
    whole = path.read_bytes()
    for length in [0, len(whole) - 1, *random.Random(0).sample(range(len(whole)), TRUNCATIONS)]:
        path.write_bytes(whole[:length])
        assert refused(member, 10), f"{length} bytes of {name}"
    path.write_bytes(whole + b"\n")
    assert refused(member, 10)
    path.write_bytes(whole)
    assert not refused(member, 10)


@pytest.mark.parametrize("name", ["cohort.json", "members/seed-0003/status.json"])
def test_flips_of_single_documents(cohort: Cohort, member: Member, name: str) -> None:
    member.set_status(Status("running", 10))
    path = cohort.folder / name
    whole = path.read_bytes()
    for bit in random.Random(1).sample(range(8 * len(whole)), 200):
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(CorruptError, match=path.name):
            (Cohort.open(cohort.folder).member(3).status())
    path.write_bytes(whole)
    assert Cohort.open(cohort.folder).member(3).status() == Status("running", 10)


def damage(path: Path) -> None:
    path.write_bytes(flipped(path.read_bytes(), 8 * (path.stat().st_size - 1)))


def test_the_previous_state_is_used_and_the_reason_said(member: Member) -> None:
    member.publish_state(20, weights_of(120), {})
    state, reasons = member.newest_readable_state()
    assert (state.step, reasons) == (20, [])
    damage(member.folder / "state/step-00000020/state.safetensors")
    state, reasons = member.newest_readable_state()
    assert state.step == 10
    assert equal(state.tensors, weights_of(110))
    assert len(reasons) == 1
    assert "step-00000020/state.safetensors has SHA-256" in reasons[0]
    damage(member.folder / "state/step-00000010/state.safetensors")
    state, reasons = member.newest_readable_state()
    assert state is None
    assert len(reasons) == 2


def test_the_previous_step_is_used_and_the_reason_said(member: Member) -> None:
    member.publish_step(20, weights_of(20), {})
    damage(member.folder / "steps/step-00000020/weights.safetensors")
    checkpoint, reasons = member.newest_readable_step()
    assert checkpoint.step == 10
    assert "step-00000020" in reasons[0]


def test_a_damaged_step_is_set_aside_when_it_is_published_again(member: Member) -> None:
    damage(member.folder / "steps/step-00000010/weights.safetensors")
    member.publish_step(10, weights_of(10), {"config": "c"})
    assert equal(member.read_step(10).weights, weights_of(10))
    assert member.steps() == [10]
    assert len(list((member.folder / "steps").glob(".corrupt-step-00000010*"))) == 1
    assert member.sweep() == []  # evidence is kept


def test_what_merely_cannot_be_read_is_not_set_aside(member: Member) -> None:
    def unreadable(name: str, call: object) -> object:
        return (lambda *arguments: failing(5)(call, arguments)) if name == "open_read" else call

    with replaced_calls(unreadable), pytest.raises(UnreadableError, match="could not be read"):
        member.publish_step(10, weights_of(10), {"config": "c"})
    assert equal(member.read_step(10).weights, weights_of(10))


def test_pruning_keeps_what_can_be_read(member: Member) -> None:
    for step in (20, 30, 40):
        member.publish_state(step, weights_of(100 + step), {})
    damage(member.folder / "state/step-00000040/state.safetensors")
    assert member.prune_states(keep=2) == [10]
    assert member.states() == [20, 30, 40]
    damage(member.folder / "state/step-00000030/state.safetensors")
    assert member.prune_states(keep=2) == []  # one readable is left, and nothing replaces it
    assert member.prune_states(keep=1) == []
    member.publish_state(50, weights_of(150), {})
    damage(member.folder / "state/step-00000020/state.safetensors")
    assert member.prune_states(keep=2) == []  # the damaged ones may be all that is left to look at
    assert member.prune_states(keep=1) == [20, 30, 40]
    with pytest.raises(ValueError, match="keep=0"):
        member.prune_states(keep=0)


def test_a_misplaced_copy_is_refused(cohort: Cohort, member: Member) -> None:
    steps = member.folder / "steps"
    (steps / "step-00000010").rename(steps / "step-00000011")
    with pytest.raises(CorruptError, match="published as step 10, not 11"):
        member.read_step(11)
    (cohort.member(4).folder / "steps").mkdir(parents=True)
    (steps / "step-00000011").rename(cohort.member(4).folder / "steps" / "step-00000010")
    with pytest.raises(CorruptError, match="published as seed 3, not 4"):
        cohort.member(4).read_step(10)


def test_damaged_pairs_are_refused_and_computed_again(cohort: Cohort) -> None:
    key, label = "0a" * 32, "seed-0000--seed-0001"
    rows = [{"value": 0.1 + 0.2, "low": 1e-308, "n": 3}, {"value": -0.0, "site": None}]
    assert cohort.pairs.read(key, label) is None
    cohort.pairs.publish(key, label, rows, {"metric": "2"})
    exactly = [{name: repr(value) for name, value in row.items()} for row in rows]
    read = cohort.pairs.read(key, label)
    assert [{name: repr(value) for name, value in row.items()} for row in read] == exactly
    with pytest.raises(CorruptError, match="rows of key"):
        cohort.pairs.read(key[:16] + "f" * 48, label)
    damage(cohort.folder / "pairs" / label / key[:16] / "rows.jsonl")
    with pytest.raises(CorruptError, match=r"rows\.jsonl has SHA-256"):
        cohort.pairs.read(key, label)
    cohort.pairs.discard(key, label)
    assert cohort.pairs.read(key, label) is None
    cohort.pairs.discard(key, label)  # gone already is benign
    with pytest.raises(ValueError, match="no place in JSON"):
        cohort.pairs.publish(key, label, [{"value": float("nan")}], {})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_come_back(dtype: torch.dtype) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3).to(dtype), "scalar": torch.tensor(1).to(dtype)}
    back = from_bytes(to_bytes({**tensors, "empty": torch.zeros(0, 3, dtype=dtype)}), Path("x"))
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == dtype for name in tensors)
    assert back["empty"].shape == (0, 3)


def test_equal_tensors_give_equal_bytes() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tied = {"a": base, "b": base, "c": base.T}
    apart = {"c": base.T.contiguous(), "b": base.clone(), "a": base.clone().requires_grad_()}
    assert to_bytes(tied) == to_bytes(apart)
    assert to_bytes(tied) != to_bytes({**apart, "a": base + 1})


def test_facts_and_fingerprints_are_covered_by_the_digest(cohort: Cohort) -> None:
    one = cohort.member(0).publish_step(1, weights_of(1), {"config": "a"})
    other = cohort.member(1).publish_step(1, weights_of(1), {"config": "a"})
    assert one.files == other.files
    assert one.digest != other.digest  # they are of different seeds
    assert cohort.member(0).read_step(1).digest == one.digest
    changed = {**IDENTITY, "task": {"name": "text"}}
    fingerprints = Cohort(cohort.folder, changed).fingerprints
    assert {part for part in fingerprints if fingerprints[part] != cohort.fingerprints[part]} == {"task"}
