"""Bars by hand, and held against decoys of small trained models."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import polars as pl
import pytest
import torch
from scipy.stats import t as student
from torch import Tensor

sys.path.append(
    str(Path(__file__).parent.parent / "components")
)  # for the small models, which are made there

from toy_models import SMALL, Toy, dyck_functions, toy_functions
from toy_models import table as toy_table

from polymorph.components.decoys import AVERAGED, DECOYS, SWAPPED
from polymorph.evidence.evidence import Evidence, planted_evidence
from polymorph.evidence.pairs import pairs_of
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row, table
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.studies.bars import divergence as bars
from polymorph.studies.bars import rows as searches
from polymorph.studies.bars.claims import BOUNDS
from polymorph.studies.bars.claims import study_claims as bar_claims
from polymorph.studies.bars.divergence import ACROSS, WITHIN, Answered, smoothed_kl
from polymorph.studies.bars.rows import study_rows as bar_rows
from polymorph.studies.bars.separation import auc, separations
from polymorph.studies.components import members as components
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables
from polymorph.tasks.dyck.task import Dyck

SAMPLES, MEMBERS = 2000, 2


@cache
def learned() -> dict[str, Tensor]:
    """The weights of a small model that is better at every head than a constant answer."""
    model, task = DyckTransformer(SMALL, 0), Dyck()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(150):
        chunk = task.fresh(0, step, 1024, torch.device("cpu"))
        said = model(*chunk.arguments, **chunk.keywords)
        labels = {head: own[chunk.kept] for head, own in chunk.labels.items()}
        losses = [torch.nn.functional.cross_entropy(said[head][chunk.kept], labels[head]) for head in labels]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
    return {name: value.detach() for name, value in model.named_parameters()}


def member(seed: int) -> DyckTransformer:
    """What was learned, a little off: further from one another than noise of 1 % is."""
    made, base, generator = DyckTransformer(SMALL, 0), learned(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, own in made.named_parameters():
            noise = torch.randn(own.shape, generator=generator)
            own.copy_(base[name] + 0.05 * base[name].square().mean().sqrt() * noise)
    return made


def evidence_of(models, functions=dyck_functions) -> Evidence:
    ends = [(seed, 9) for seed in range(len(models))]
    source = planted_evidence(
        Planted("rotated", PlantedConfig(d=4, members=len(models), documents=24))
    ).source
    made = lambda chosen: functions([models[seed] for seed, _ in chosen], 10)  # noqa: E731
    return Evidence("c", ends, pairs_of(ends), source, blocks=6, functions=made)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bars, "SAMPLES", {"cpu": SAMPLES})
        patch.setattr(bars, "SAMPLES_OF_DECOYS", SAMPLES)
        patch.setattr(searches, "RESTARTS", 1)
        patch.setattr(searches, "TOKENS_WITHIN", 150)
        patch.setattr(components, "TOKENS", 200)
        return table(
            bar_rows(evidence_of([member(seed) for seed in range(MEMBERS)])), STUDIES["bars"].columns
        )


def test_the_papers_divergence_is_that_of_smoothed_labels(generator):
    log_p = torch.randn(6, 9, generator=generator, dtype=torch.float64).log_softmax(-1)
    labels = torch.tensor([0, 3, 8, 1, 1, 2])
    q = torch.full((6, 9), 1e-6 / 8, dtype=torch.float64)
    q[torch.arange(6), labels] = 1 - 1e-6
    expected = torch.nn.functional.kl_div(log_p, q, reduction="none").sum(-1)
    assert smoothed_kl(log_p, labels) == pytest.approx(expected, rel=1e-10)
    assert smoothed_kl(q.log(), labels) == pytest.approx(torch.zeros(6), abs=1e-14)


def test_smoothing_alone_is_more_than_nothing_for_an_answer_that_is_right_and_sure():
    """A tenth of the bound and more, where the loss of the label itself is 0."""
    logits = torch.zeros(1, 9, dtype=torch.float64)
    logits[0, 4] = 40
    log_p = logits.log_softmax(-1)
    assert float(-log_p[0, 4]) < 1e-14
    assert float(smoothed_kl(log_p, torch.tensor([4]))) > 0.1 * BOUNDS["B"].value


def test_auc_by_hand():
    assert auc([1, 2], [3, 4, 5], small=True) == 1
    assert auc([1, 2], [3, 4, 5], small=False) == 0
    assert auc([1, 4], [1, 3], small=True) == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert auc([7], [7], small=False) == 0.5


def row(value: float, seed: int, other: int, decoy: str | None = None, **extra) -> Row:
    named = {"decoy": decoy} if decoy else {}
    about = {"bar": "C", "scope": ACROSS, **named, **extra}
    return Row(cohort="c", study="bars", role="estimate", metric="effect_correlation", value=value, source=seed,
               target=other, extra=about)  # fmt: skip


def test_a_separation_leaves_out_a_seed_with_its_decoys():
    members = [row(0.5, 0, 1), row(0.6, 1, 2), row(0.8, 0, 2)]
    decoys = [row(value, seed, seed, SWAPPED) for seed, value in enumerate((0.55, 0.1, 0.7))]
    found = {r.extra["decoy"]: r for r in separations(evidence_of([None] * 3), [*members, *decoys])}
    assert found["all"].value == found[SWAPPED].value == pytest.approx(6 / 9)
    left = [auc([0.6], [0.1, 0.7], False), auc([0.8], [0.55, 0.7], False), auc([0.5], [0.55, 0.1], False)]
    mean = sum(left) / 3
    half = student.ppf(0.975, 2) * (2 / 3 * sum((value - mean) ** 2 for value in left)) ** 0.5
    assert found["all"].low == pytest.approx(max(0, 6 / 9 - half))
    assert found["all"].high == pytest.approx(min(1, 6 / 9 + half))


def of_bar(rows: pl.DataFrame, bar: str, scope: str, decoy: str | None) -> dict[tuple, float]:
    own = rows.filter(pl.col("decoy").eq_missing(decoy), pl.col("metric") != "auc", bar=bar, scope=scope)
    own = own.filter(pl.col("convention").eq("paper") if bar == "P" else pl.col("convention").is_null())
    if bar == "B":
        own = own.filter(head="mean", distribution="mixture")
    return {(r["source"], r["target"]): r["value"] for r in own.iter_rows(named=True)}


def test_decoys_are_further_from_the_algorithm_than_their_members(rows):
    members = of_bar(rows, "B", WITHIN, None)
    assert len(members) == MEMBERS
    for decoy in (AVERAGED, SWAPPED, "noise_1"):  # less noise hardly changes what so little training has made
        for ends, value in of_bar(rows, "B", WITHIN, decoy).items():
            assert value > 1.02 * members[ends]
        assert rows.filter(metric="auc", bar="B", scope=WITHIN, decoy=decoy)["value"].item() > 0.7
    sizes = [max(of_bar(rows, "B", ACROSS, f"noise_{share}").values()) for share in ("0.01", "0.1", "1")]
    assert sizes == sorted(sizes)


def test_bar_b_is_the_mean_over_heads_and_distributions_in_the_papers_shares(rows):
    own = rows.filter(bar="B", scope=WITHIN, target=1, role="estimate").filter(pl.col("convention").is_null())
    mixed = own.filter(distribution="mixture")
    heads = mixed.filter(pl.col("head") != "mean")["value"]
    assert len(heads) == 3
    whole = mixed.filter(head="mean")
    assert whole["value"].item() == pytest.approx(heads.mean())
    each = own.filter(pl.col("distribution") != "mixture", head="mean")
    assert set(each["distribution"]) == {"train", "compositional", "long"}
    assert each["n_tokens"].sum() == whole["n_tokens"].item() >= SAMPLES
    assert each["n_documents"].sum() == whole["n_documents"].item()
    assert whole["low"].item() < whole["value"].item() < whole["high"].item()


def test_nothing_within_a_member_is_refused_by_c(rows):
    """Integrated gradients are complete for any network, a decoy among them."""
    for decoy in (None, *DECOYS):
        assert min(of_bar(rows, "C", WITHIN, decoy).values()) > 0.99


def test_p_prefers_a_little_noise_to_another_seed(rows):
    """It knows nothing of what is computed: the decoy is nearer, and the separation is below chance."""
    assert max(of_bar(rows, "P", ACROSS, "noise_0.01").values()) < min(
        of_bar(rows, "P", ACROSS, None).values()
    )
    assert rows.filter(metric="auc", bar="P", scope=ACROSS, decoy="noise_0.01")["value"].item() == 0


def test_p_within_finds_copies_again_and_refuses_nothing(rows):
    own = rows.filter(bar="P", scope=WITHIN)
    assert own["decoy"].null_count() == own.height > 0
    assert own.filter(metric="mse")["value"].max() < 1e-10
    assert set(rows.filter(bar="P")["metric"]) == {"mse", "relative_mse", "auc"}


def test_every_bar_has_its_numbers_decoys_and_separations(rows):
    for bar, scopes in {
        "B": (WITHIN, ACROSS),
        "P": (ACROSS,),
        "C": (WITHIN, ACROSS),
        "Pr": (WITHIN, ACROSS),
    }.items():
        for scope in scopes:
            pairs = 1 if bar == "P" else MEMBERS
            assert len(of_bar(rows, bar, scope, None)) == pairs
            assert all(len(of_bar(rows, bar, scope, decoy)) == MEMBERS for decoy in DECOYS)
            assert set(rows.filter(metric="auc", bar=bar, scope=scope)["decoy"]) == {"all", *DECOYS}
    assert set(rows.filter(pl.col("decoy").is_not_null() & (pl.col("metric") != "auc"))["role"]) == {
        "control"
    }


def test_a_task_without_an_algorithm_has_no_bar_b_within():
    models = [Toy([lambda x, own=own: x * own], lambda x: x.sum(-1), toy_table(seed)).eval()
              for seed, own in enumerate((1.0, 1.5))]  # fmt: skip
    functions = toy_functions(models)
    answered = Answered(functions, [(0, 1)], [], 4)
    assert {metric for _, _, metric in answered.keys} == {"kl"}
    assert answered.samples == bars.SAMPLES_OF_DECOYS
    found = table(bar_rows(evidence_of(models, lambda some, _: toy_functions(some))), STUDIES["bars"].columns)
    assert set(found["bar"]) == {
        "B"
    }  # one MLP is no correlation, and the architecture has no table of symmetries
    assert set(found["scope"]) == {ACROSS}


def test_without_models_it_is_refused():
    evidence = replace(evidence_of([None] * 2), functions=None)
    tables, refused = study_tables(evidence, ["bars"])
    assert (tables, refused) == ({}, [("study bars", "it needs members that are models")])


# Claims.


def claimed(rows: list[Row]) -> dict[str, tuple[str, str]]:
    found = bar_claims({"bars": table(rows, STUDIES["bars"].columns)})
    return {claim.id: (claim.verdict, claim.reason) for claim in found}


def spread(values: list[float], half: float) -> list[Row]:
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
    return [
        replace(row(v, *pair), low=v - half, high=v + half) for v, pair in zip(values, pairs, strict=True)
    ]


def test_a_bar_is_passed_where_every_pair_is_and_decoys_are_counted():
    passed = spread([0.995, 0.996, 0.997, 0.998, 0.999, 0.999], 0.002)
    decoys = [row(0.999, 0, 0, AVERAGED), row(0.2, 0, 0, SWAPPED)]
    verdict, reason = claimed([*passed, *decoys])["bar:C:across"]
    assert verdict == "passed"
    assert "6 of 6 pairs pass, and 1 of 2 decoys" in reason
    assert claimed(spread([0.5, 0.6, 0.3, 0.9, 0.98, 0.7], 0.005))["bar:C:across"][0] == "not passed"
    assert (
        claimed(spread([0.9999, 0.97, 0.9999, 0.999, 0.98, 0.9999], 0.01))["bar:C:across"][0]
        == "undetermined"
    )


def test_small_numbers_pass_the_other_bars(rows):
    value = {"bar": "P", "scope": ACROSS}
    for mse, verdict in ((1e-5, "passed"), (0.4, "not passed")):
        one = replace(row(mse, 0, 1), metric="mse", convention="paper", extra=value)
        relative = replace(row(0.5, 0, 1), metric="relative_mse", extra=value)
        assert claimed([one, relative])["bar:P:across"][0] == verdict
    verdicts = {claim.id: claim.verdict for claim in bar_claims({"bars": rows})}
    assert verdicts["bar:B:within"] == verdicts["bar:B:across"] == "not passed"  # hardly trained
    assert verdicts["bar:C:within"] == "passed"


def test_bounds_are_the_papers_and_cannot_be_moved():
    assert {bar: (bound.value, bound.below) for bar, bound in BOUNDS.items()} == {
        "B": (1e-4, True), "P": (1e-3, True), "C": (0.99, False), "Pr": (0.99, False),
    }  # fmt: skip
    with pytest.raises(TypeError):
        BOUNDS["B"] = BOUNDS["P"]
    with pytest.raises(AttributeError):
        BOUNDS["B"].value = 1.0


def test_without_the_study_there_is_no_claim():
    assert list(bar_claims({})) == []
