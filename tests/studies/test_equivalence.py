"""Functions that are one by construction, and others that are not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from rotated_models import (
    CONFIG,
    CPU,
    Answered,
    Members,
    deaf,
    haar_matrix,
    near,
    random_model,
    rotated,
)
from scipy.stats import t as student
from torch import Tensor

from polymorph.evidence import function_scores
from polymorph.evidence.evidence import planted_evidence
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row, table
from polymorph.models.functions import Functions
from polymorph.studies.equivalence.rows import study_rows as equivalence_rows
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables
from polymorph.tasks.config import ProbeConfig

HEADS = ("tok", "depth", "valid")
ALL_HEADS = (*HEADS, "all")
ORIGINAL = random_model(0)
TURNED = rotated(ORIGINAL, haar_matrix(16, 5))
OTHER = random_model(1)
TASK = Answered(ORIGINAL)


def members(models: Mapping[tuple[int, int], object], **more: object) -> Members:
    return Members(models, **{"task": TASK, **more})  # type: ignore[arg-type]


def rows_of(given: Members) -> list[Row]:
    rows = list(equivalence_rows(given.evidence))
    table(rows, STUDIES["equivalence"].columns)  # which refuses two rows with one key
    return rows


def found(rows: list[Row], metric: str, **about: object) -> dict[tuple[object, ...], Row]:
    """By source, target, distribution and head."""
    control = about.pop("control", None)
    chosen = [row for row in rows if row.metric == metric and row.extra.get("control") == control]
    chosen = [row for row in chosen if all(getattr(row, name) == value for name, value in about.items())]
    return {(row.source, row.target, row.extra["distribution"], row.extra["head"]): row for row in chosen}


@pytest.fixture(scope="module")
def planted() -> list[Row]:
    """A model, a copy of it turned in its residual stream, and an unrelated one."""
    return rows_of(members({(0, 9): ORIGINAL, (1, 9): TURNED, (2, 9): OTHER}))


def test_a_rotated_copy_is_the_same_function_and_an_unrelated_model_is_not(planted: list[Row]) -> None:
    """1e-9: the logits of the copy, in float32, are off by about 1e-5, and KL is about a square of that."""
    for metric in ("kl", "relative_kl"):
        for (source, target, _, _), row in found(planted, metric, role="estimate").items():
            assert abs(row.value) < 1e-9 if {source, target} == {0, 1} else row.value > 0.1
    for (source, target, _, _), row in found(planted, "agreement", role="estimate").items():
        if {source, target} == {0, 1}:
            assert (row.value, row.low, row.high) == (1, 1, 1)
        else:
            assert row.value < 0.95
    losses = found(planted, "loss", role="estimate")
    for (_, target, *about), row in losses.items():
        if target == 1:
            assert row.value == pytest.approx(losses[None, 0, *about].value, abs=1e-6)


def test_unrelated_models_agree_as_often_as_chance_has_it(planted: list[Row]) -> None:
    """A token decides what either says, so agreement is that of a few dozen inputs: 0.07 was seen."""
    agreement, chance = (found(planted, "agreement", control=control) for control in (None, "chance"))
    for head in HEADS:
        apart = [
            agreement[key].value - row.value for key, row in chance.items() if key[3] == head and 2 in key[:2]
        ]
        assert abs(sum(apart) / len(apart)) < 0.1
        same = [
            agreement[key].value - row.value
            for key, row in chance.items()
            if key[3] == head and 2 not in key[:2]
        ]
        assert min(same) > 0.1  # the opposite; no more room where chance is 0.87


def test_members_are_never_told_apart_by_what_is_only_their_basis(planted: list[Row]) -> None:
    """What each of two equal functions is from a third one is equal too."""
    kl = found(planted, "kl", role="estimate")
    for distribution in TASK.distributions:
        for head in ALL_HEADS:
            first, second = (kl[seed, 2, distribution, head].value for seed in (0, 1))
            assert first == pytest.approx(second, rel=1e-4)


def whole(
    functions: Functions, distribution: str
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor], Tensor]:
    """Log-probabilities of every member, labels, and documents, of all tokens at once."""
    (chunk,) = functions.inputs(distribution, 48)
    said = [functions.logits(place, chunk) for place in range(len(functions.models))]
    log_p = [{head: own.double().log_softmax(-1) for head, own in each.items()} for each in said]
    return log_p, {head: own[chunk.kept] for head, own in chunk.labels.items()}, chunk.document


def jackknifed(values: Tensor, document: Tensor, blocks: int = 8) -> tuple[float, float]:
    block = document % blocks
    parts = torch.stack([values[block != b].mean() for b in range(blocks)])
    error = ((parts - parts.mean()).square().sum() * (blocks - 1) / blocks).sqrt()
    return float(values.mean()), float(student.ppf(0.975, blocks - 1) * error)


def check(row: Row, values: Tensor, document: Tensor) -> None:
    value, half = jackknifed(values.double(), document)
    assert row.value == pytest.approx(value, abs=1e-9)
    assert (row.low, row.high) == pytest.approx((value - half, value + half), abs=1e-9)
    assert row.n_tokens == len(values)


def test_every_number_is_what_its_definition_says(planted: list[Row]) -> None:
    given = members({(0, 9): ORIGINAL, (1, 9): TURNED, (2, 9): OTHER})
    for distribution in given.distributions:
        log_p, labels, document = whole(given.functions([(0, 9), (2, 9)]), distribution)
        total: dict[str, list[Tensor]] = {"loss": [], "right": [], "kl": [], "same": []}
        for head in HEADS:
            p, q = (each[head] for each in log_p)
            total["loss"].append(-q.gather(-1, labels[head][:, None]).squeeze(1))
            total["right"].append((q.argmax(-1) == labels[head]).double())
            total["kl"].append((q.exp() * (q - p)).sum(-1))
            total["same"].append((p.argmax(-1) == q.argmax(-1)).double())
        for place, head in enumerate(ALL_HEADS):
            loss, kl = (
                total[name][place] if head != "all" else sum(total[name], torch.zeros(()))
                for name in ("loss", "kl")
            )
            right, same = (
                total[name][place] if head != "all" else torch.stack(total[name]).prod(0)
                for name in ("right", "same")
            )
            at, pair = (None, 2, distribution, head), (2, 0, distribution, head)
            check(found(planted, "loss", role="estimate")[at], loss, document)
            check(found(planted, "accuracy", role="estimate")[at], right, document)
            check(found(planted, "kl", role="estimate")[pair], kl, document)
            check(found(planted, "agreement")[pair], same, document)
            wrong = right == 0
            check(found(planted, "agreement_where_wrong")[pair], same[wrong], document[wrong])


def test_constant_answers_and_chance_are_those_of_these_tokens(planted: list[Row]) -> None:
    given = members({(0, 9): ORIGINAL, (1, 9): TURNED, (2, 9): OTHER})
    (log_p, other), labels, _ = whole(given.functions([(0, 9), (2, 9)]), "train")
    alone = {}
    for head in HEADS:
        mean = log_p[head].exp().mean(0)
        alone[head] = float((log_p[head].exp() * (log_p[head] - mean.log())).sum(-1).mean())
        at = (0, None, "train", head)
        assert found(planted, "kl", control="constant")[at].value == pytest.approx(alone[head], abs=1e-9)
        shares = torch.bincount(labels[head]).double() / len(labels[head])
        entropy = float(-torch.xlogy(shares, shares).sum())
        at = (None, None, "train", head)
        assert found(planted, "loss", control="constant")[at].value == pytest.approx(entropy, abs=1e-9)
        best = found(planted, "accuracy", control="constant")[at]
        assert best.value == pytest.approx(float(shares.max()))
        classes = log_p[head].shape[-1]
        f, g = (
            torch.bincount(each[head].argmax(-1), minlength=classes) / len(labels[head])
            for each in (log_p, other)
        )
        chance = found(planted, "agreement", control="chance")[0, 2, "train", head]
        assert chance.value == pytest.approx(float((f * g).sum()), abs=1e-6)
    together = found(planted, "kl", control="constant")[0, None, "train", "all"]
    assert together.value == pytest.approx(sum(alone.values()))
    relative = found(planted, "relative_kl", role="estimate")[0, 2, "train", "all"]
    kl = found(planted, "kl", role="estimate")[0, 2, "train", "all"]
    assert relative.value == pytest.approx(kl.value / together.value)


def test_no_constant_is_nearer_to_a_member_than_the_mean_of_its_answers() -> None:
    given = members({(0, 9): ORIGINAL, (1, 9): OTHER})
    (log_p, _), labels, _ = whole(given.functions([(0, 9), (1, 9)]), "train")
    rows = rows_of(given)
    for head in ("depth", "valid"):
        least = found(rows, "kl", control="constant")[0, None, "train", head].value
        uniform = torch.full_like(log_p[head], -math.log(log_p[head].shape[-1]))
        marginal = (torch.bincount(labels[head], minlength=log_p[head].shape[-1]) + 0.5).double()
        for constant in (uniform, (marginal / marginal.sum()).log()):
            assert float((log_p[head].exp() * (log_p[head] - constant)).sum(-1).mean()) > least


def test_members_that_know_nothing_are_near_in_nats_and_not_in_shares() -> None:
    """Why `relative_kl` is there: hardly any answer differs from another one, or from uniform."""
    faint = [random_model(seed, sure=0.02) for seed in (1, 2)]
    rows = rows_of(members({(0, 9): faint[0], (1, 9): faint[1]}))
    for key, row in found(rows, "kl", role="estimate").items():
        if key[3] == "depth":
            assert row.value < 0.01
            assert found(rows, "relative_kl", role="estimate")[key].value > 0.5


def test_the_excess_is_over_what_one_member_moved_and_paired_by_documents() -> None:
    """A member beside itself a little earlier, and another one; and one that was another function before."""
    apart = members(
        {(0, 4): near(ORIGINAL, 0.01, 3), (0, 9): ORIGINAL, (1, 4): near(OTHER, 0.01, 4), (1, 9): OTHER}
    )
    rows = rows_of(apart)
    assert len(found(rows, "kl_excess")) == 2 * 3 * 4
    for (*_, head), row in found(rows, "kl_excess").items():
        assert row.low is not None
        assert head == "valid" or row.low > 0
    same = members({(0, 4): deaf(ORIGINAL), (0, 9): ORIGINAL, (1, 4): OTHER, (1, 9): TURNED})
    for row in found(rows_of(same), "kl_excess").values():
        assert row.high is not None
        assert row.high < 0
    functions = apart.functions([(0, 9), (1, 9), (0, 4), (1, 4)])
    log_p, _, document = whole(functions, "train")

    def kl(first: int, second: int) -> Tensor:
        p, q = log_p[first]["depth"], log_p[second]["depth"]
        return (p.exp() * (p - q)).sum(-1)

    excess = kl(0, 1) - (kl(2, 0) + kl(3, 1)) / 2
    check(found(rows, "kl_excess")[0, 1, "train", "depth"], excess, document)
    ceilings = found(rows, "kl", role="ceiling")
    check(ceilings[0, 0, "train", "depth"], kl(2, 0), document)
    assert {(row.source_step, row.target_step) for row in ceilings.values()} == {(4, 9)}


def history(seed: int, steps: Sequence[int]) -> dict[tuple[int, int], object]:
    return {(seed, step): ORIGINAL if step == steps[-1] else random_model(seed + step) for step in steps}


def test_controls_are_before_training_and_halfway_in_its_logarithm() -> None:
    few = ProbeConfig(fit=8, eval=8)
    rows = rows_of(members(history(0, (0, 1, 4, 32, 100)) | history(1, (0, 1, 4, 8, 32, 81)), probe=few))

    def steps(metric: str, **about: object) -> set[tuple[int | None, int | None]]:
        return {(row.source_step, row.target_step) for row in found(rows, metric, **about).values()}

    assert steps("kl", control="untrained") == {(0, 0)}
    assert steps("kl", control="early_step") == {(4, 4)}  # √81 = 9, and not both have 8
    assert steps("kl", role="ceiling") == {(32, 100), (32, 81)}
    assert steps("loss", role="ceiling") == {(None, 32)}
    assert {row.role for row in rows if "control" in row.extra} == {"control"}
    without = rows_of(members(history(0, (2, 100)) | history(1, (3, 81)), probe=few))
    assert not found(without, "kl", control="untrained")
    assert not found(without, "kl", control="early_step")
    assert len(found(without, "kl", role="ceiling")) == 2 * 3 * 4
    alone = rows_of(members({(0, 9): ORIGINAL, (1, 9): OTHER}, probe=few))
    assert not found(alone, "kl", role="ceiling")
    assert not found(alone, "kl_excess")


def test_how_much_is_in_memory_together_changes_nothing(
    planted: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function_scores, "AT_ONCE", 1000)
    monkeypatch.setattr("polymorph.studies.equivalence.answers.HELD", 1)
    given = members({(0, 9): ORIGINAL, (1, 9): TURNED, (2, 9): OTHER})
    for row, again in zip(rows_of(given), planted, strict=True):
        assert row.to_dict() == {
            name: pytest.approx(value, abs=1e-9) if isinstance(value, float) else value
            for name, value in again.to_dict().items()
        }


def test_tokens_without_a_label_do_not_count() -> None:
    given = members({(0, 9): ORIGINAL, (1, 9): OTHER}, task=Answered(ORIGINAL, without=3))
    rows = rows_of(given)
    log_p, labels, document = whole(given.functions([(0, 9), (1, 9)]), "train")
    kept = labels["depth"] >= 0
    assert 0.5 < kept.double().mean() < 0.8
    q = log_p[1]["depth"]
    losses = -q.gather(-1, labels["depth"].clamp(min=0)[:, None]).squeeze(1)
    check(found(rows, "loss", role="estimate")[None, 1, "train", "depth"], losses[kept], document[kept])
    tokens = {
        head: found(rows, "loss", role="estimate")[None, 1, "train", head].n_tokens for head in ALL_HEADS
    }
    assert tokens == {"tok": len(kept), "valid": len(kept), "depth": int(kept.sum()), "all": int(kept.sum())}


class OneHead:
    """A model that answers with one head alone."""

    def __init__(self, model: object) -> None:
        self.model = model

    def run_with_hooks(self, *arguments: Tensor, **keywords: object) -> dict[str, Tensor]:
        return {"tok": self.model.run_with_hooks(*arguments, **keywords)["tok"]}  # type: ignore[attr-defined]


def test_one_head_has_no_sum() -> None:
    models = {(0, 9): OneHead(ORIGINAL), (1, 9): OneHead(OTHER)}
    rows = rows_of(members(models, task=Answered(ORIGINAL, heads=("tok",))))
    assert {row.extra["head"] for row in rows} == {"tok"}


def test_it_is_asked_of_models_alone_and_once() -> None:
    planted = planted_evidence(Planted("rotated", PlantedConfig(d=8, members=2, documents=32, tokens=4)))
    assert not STUDIES["equivalence"].applies(planted)
    assert list(equivalence_rows(planted)) == []
    tables, refused = study_tables(planted, ["equivalence"])
    assert tables == {}
    assert refused == [("study equivalence", "it needs members that are models")]
    given = members({(0, 9): ORIGINAL, (1, 9): OTHER}, probe=ProbeConfig(fit=8, eval=8))
    tables, refused = study_tables(given.evidence, ["equivalence"])
    assert refused == []
    assert tables["equivalence"].height == len(rows_of(given))
    assert set(tables["equivalence"]["n_documents"]) == {8}
    assert tables["equivalence"]["site"].is_null().all()
    assert STUDIES["equivalence"].scope == "all"


def test_nothing_of_a_model_is_changed() -> None:
    before = {name: value.clone() for name, value in ORIGINAL.state_dict().items()}
    rows_of(members({(0, 9): ORIGINAL, (1, 9): OTHER}, probe=ProbeConfig(fit=8, eval=8)))
    assert all(torch.equal(value, before[name]) for name, value in ORIGINAL.state_dict().items())


def test_the_plant_is_a_rotation_of_every_site_and_nothing_else() -> None:
    functions = replace(members({}).functions([]), models=[ORIGINAL, TURNED], device=CPU)
    chunk = next(iter(functions.inputs("eval")))
    x, y = (functions.read(place, chunk, CONFIG.sites) for place in (0, 1))
    R = haar_matrix(16, 5).float()
    for site in CONFIG.sites:
        torch.testing.assert_close(x[site] @ R, y[site], rtol=0, atol=1e-4)
        assert (x[site] - y[site]).abs().max() > 0.1
