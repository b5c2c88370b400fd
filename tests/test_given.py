"""`polymorph.compare` on anybody's tensors: what it finds, and what it will not bear."""

import re
from collections.abc import Callable

import polars as pl
import pytest
import torch
from torch import Tensor

from polymorph import compare
from polymorph.pipeline.given_activations import OF_GIVEN, Compared

TOKENS, LENGTH = 4000, 20
DOCUMENT = torch.arange(TOKENS).div(LENGTH, rounding_mode="floor")
NONE_OF_HAAR = {"determined_dimension", "dimension"}


@pytest.fixture
def normal(generator: torch.Generator) -> Callable[..., Tensor]:
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def turn(square: Tensor, determinant: int = 1) -> Tensor:
    """A rotation, or with −1 a reflection, out of a random square."""
    Q = torch.linalg.qr(square).Q
    if float(torch.linalg.det(Q)) * determinant < 0:
        Q[:, 0] = -Q[:, 0]
    return Q


def verdicts(found: Compared) -> dict[str, str]:
    return {claim.kind: claim.verdict for claim in found.claims}


# What is found.


def test_a_rotation_is_found(normal):
    x = normal(TOKENS, 16)
    found = compare([x, x @ turn(normal(16, 16)) + 3], document=DOCUMENT)
    assert found.verdict == "rotation"
    assert verdicts(found)["pairing"] == "related"
    assert verdicts(found)["isometry"] == "not rejected"
    assert set(found.tables) | {name.removeprefix("study ") for name, _ in found.refused} == set(OF_GIVEN)
    assert [name for name, _ in found.refused] == ["study cycles"]  # which takes three members


def test_three_members_have_cycles(normal):
    x = normal(TOKENS, 8)
    found = compare([x, x @ turn(normal(8, 8)), x @ turn(normal(8, 8))], document=DOCUMENT)
    assert found.verdict == "rotation"
    assert found.refused == []
    coherence = found.tables["cycles"].filter(
        pl.col("metric").eq("cycle_coherence") & pl.col("role").eq("estimate")
    )
    assert coherence["value"].to_list() == pytest.approx([1.0], abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_reflection_is_reported_in_either_precision(normal, dtype):
    x = normal(TOKENS, 8)
    found = compare([x.to(dtype), (x @ turn(normal(8, 8), -1)).to(dtype)], document=DOCUMENT)
    assert found.verdict == "orthogonal"
    assert "det R = −1 in 1 of 1 pairs" in found.statement


def test_independent_data_are_unrelated_and_never_haar(normal):
    said = []
    for _ in range(6):
        members = [normal(TOKENS, 16), normal(TOKENS, 16)]
        found = compare(members, DOCUMENT, studies=("pairing", "ladder", "support", "haar"))
        said.append(found.verdict)
        assert verdicts(found)["haar"] == "refused"
        assert set(found.tables["haar"].filter(pl.col("convention").is_null())["metric"]) == NONE_OF_HAAR
    assert set(said) <= {"unrelated", "undetermined"}
    assert said.count("unrelated") >= 4  # one in twenty is rejected by chance


def test_a_bent_copy_is_no_rotation(normal):
    x = normal(TOKENS, 8)
    scales = torch.linspace(0.5, 2, 8, dtype=torch.float64)
    found = compare([x, (x * scales) @ turn(normal(8, 8))], document=DOCUMENT)
    assert found.verdict == "affine"
    assert verdicts(found)["isometry"] == "rejected"


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_a_member_against_itself_at_a_low_rank_site(normal, mean):
    x = normal(TOKENS, 12) @ normal(12, 64) + mean
    found = compare([x, x], document=DOCUMENT)
    assert found.verdict == "undetermined"
    assert "R is undetermined: the data determine 12 of 64" in found.statement
    assert verdicts(found)["haar"] == "refused"
    assert (
        set(found.tables["haar"].filter(pl.col("convention").is_null())["metric"]) == NONE_OF_HAAR
    )  # no distance from Haar, no p
    support = found.tables["support"].filter(pl.col("role") == "estimate")
    for metric in ("rank", "determined_dimension", "pinned_dimension"):
        assert support.filter(pl.col("metric") == metric)["value"].to_list() == [12.0]


def test_the_order_of_tokens_and_the_names_of_documents_do_not_matter(normal, generator):
    x = normal(TOKENS, 6)
    members = [x, x @ turn(normal(6, 6)) + 0.2 * normal(TOKENS, 6)]
    straight = compare(members, DOCUMENT, studies=("ladder", "support"))
    order = torch.randperm(TOKENS, generator=generator)
    position = torch.arange(LENGTH).repeat(TOKENS // LENGTH)
    mixed = compare(
        [member[order] for member in members],
        7 * DOCUMENT[order] - 50,
        position[order],
        studies=("ladder", "support"),
    )
    assert mixed.verdict == straight.verdict
    rows, same = (
        found.tables["ladder"].filter(pl.col("metric").eq("r2") & pl.col("role").eq("estimate"))
        for found in (straight, mixed)
    )
    assert rows["value"].to_list() == pytest.approx(same["value"].to_list(), abs=1e-10)


def test_the_tensors_are_left_alone_and_give_the_same_again(normal):
    x = normal(TOKENS, 6)
    members, document = [x, x @ turn(normal(6, 6))], DOCUMENT.flip(0).clone()
    before = [member.clone() for member in members], document.clone()
    first, again = (compare(members, document, studies=("pairing", "ladder")) for _ in range(2))
    assert first.claims == again.claims
    assert all(torch.equal(now, was) for now, was in zip(members, before[0], strict=True))
    assert torch.equal(document, before[1])


# What is not borne.

MEMBERS = {
    "not a number": (lambda x: [x, x.index_fill(0, torch.tensor([5]), torch.nan)], "not finite"),
    "infinity": (lambda x: [x.index_fill(1, torch.tensor([0]), torch.inf), x], "not finite"),
    "minus infinity": (lambda x: [x, x.index_fill(0, torch.tensor([9]), -torch.inf)], "not finite"),
    "another d": (lambda x: [x, x[:, :7]], r"one shape \[n, d\], got \[\(4000, 7\), \(4000, 8\)\]"),
    "another n": (lambda x: [x, x[:-1]], r"one shape \[n, d\]"),
    "one member": (lambda x: [x], "two or more"),
    "no member": (lambda x: [], "two or more|at least"),
    "no dimension": (lambda x: [x[:, 0], x[:, 0]], r"\[n, d\]"),
    "a constant member": (lambda x: [torch.ones_like(x), x], "every dimension of seed 0, .* is constant"),
    "a constant target": (
        lambda x: [x, torch.full_like(x, 2.5)],
        "every dimension of seed 1, .* is constant",
    ),
}


@pytest.mark.parametrize("what", MEMBERS)
def test_wrong_members_are_refused(normal, what):
    make, expected = MEMBERS[what]
    with pytest.raises(ValueError, match=expected):
        compare(make(normal(TOKENS, 8)), document=DOCUMENT)


DOCUMENTS = {
    "one document": (torch.zeros(TOKENS, dtype=torch.long), "at least four documents, got 1"),
    "three documents": (torch.arange(TOKENS) % 3, "at least four documents, got 3"),
    "another length": (DOCUMENT[:-1], re.escape("document has the shape (3999,), for 4000 tokens")),
}


@pytest.mark.parametrize("what", DOCUMENTS)
def test_wrong_documents_are_refused(normal, what):
    document, expected = DOCUMENTS[what]
    x = normal(TOKENS, 8)
    with pytest.raises(ValueError, match=expected):
        compare([x, x], document=document)


def test_fewer_tokens_than_dimensions_are_refused(normal):
    x = normal(100, 64)
    with pytest.raises(ValueError, match="too few tokens to fit a map: 50 tokens in 64 dimensions"):
        compare([x, x], document=torch.arange(100) // 5)


def test_a_token_at_a_place_that_is_taken_is_refused(normal):
    x = normal(TOKENS, 8)
    with pytest.raises(ValueError, match="position"):
        compare([x, x], DOCUMENT, position=torch.zeros(TOKENS, dtype=torch.long))


@pytest.mark.parametrize("side", [0, 1])
def test_with_a_constant_dimension_nothing_is_said_of_all_of_r(normal, side):
    x = normal(TOKENS, 16)
    flat = x.clone()
    flat[:, 3] = 2.5
    found = compare([flat, x] if side == 0 else [x, flat], document=DOCUMENT)
    assert found.verdict == "undetermined"
    assert "the data determine 15 of 16 dimensions; on those: rotation" in found.statement
    assert verdicts(found)["haar"] == "refused"


def test_of_few_documents_nothing_is_silently_said(normal):
    """Two for each split: whatever needs more is refused by name, and nothing is called Haar."""
    x = normal(TOKENS, 16)
    found = compare([x, x @ turn(normal(16, 16))], document=torch.arange(TOKENS) // 1000)
    assert {"study isometry", "study sample_efficiency"} <= {name for name, _ in found.refused}
    assert verdicts(found)["haar"] == "refused"
