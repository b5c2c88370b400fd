"""The study on members whose causal directions are planted: what carries over, what is inverted, what does nothing."""

from dataclasses import replace

import polars as pl
import pytest
import torch
from planted_functions import CONTRAST, CPU, D, evidence, flipped, member, rotations
from rotated_models import haar_matrix
from rotated_models import rotated as in_another_basis

from polymorph.errors import RequestError
from polymorph.evidence.evidence import Evidence, planted_evidence
from polymorph.evidence.pairs import pairs_of
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import table
from polymorph.models.activations import ModelActivations
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.models.functions import Functions
from polymorph.steering.request import Steering
from polymorph.studies.registry import STUDIES
from polymorph.studies.steering import rows as steering
from polymorph.studies.steering.bench import DIRECTIONS, MAPS, SHUFFLED
from polymorph.studies.tables import study_tables
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import Dyck

EYE = torch.eye(D, dtype=torch.float64)


def found(evidence: Evidence) -> pl.DataFrame:
    return table(steering.study_rows(evidence), STUDIES["steering"].columns)


def regimes(frame: pl.DataFrame, name: str, control: str | None = None) -> list[str]:
    own = frame.filter(pl.col("control").eq_missing(pl.lit(control)), metric="regime", map=name)
    return own.sort("contrast", "source", "target")["regime"].to_list()


def efficiencies(frame: pl.DataFrame, name: str, control: str | None = None) -> pl.DataFrame:
    about = pl.col("control").eq_missing(pl.lit(control))
    return frame.filter(about, metric="transfer_efficiency", map=name, dose=1.0)


@pytest.fixture(scope="module")
def rotated() -> pl.DataFrame:
    """Three members in bases of their own, with a little noise."""
    return found(evidence([member(R, seed, 0.05) for seed, R in enumerate(rotations(3))]))


def test_vectors_carry_over_through_r_and_not_without_it(rotated):
    for name in ("orthogonal", "similarity", "affine"):
        assert set(regimes(rotated, name)) == {"clean"}
        assert efficiencies(rotated, name)["value"].is_between(0.9, 1.1).all()
    assert not set(regimes(rotated, "identity")) & {"clean", "partial"}
    assert not set(regimes(rotated, "orthogonal", SHUFFLED)) & {"clean", "partial"}
    unmapped, mapped = (efficiencies(rotated, name)["value"] for name in ("identity", "orthogonal"))
    assert float(mapped.min()) > float(unmapped.max()) + 0.3


def test_in_one_basis_nothing_needs_to_be_done(tmp_path):
    frame = found(evidence([member(EYE, seed, 0.05) for seed in range(2)]))
    assert set(regimes(frame, "identity")) == set(regimes(frame, "orthogonal")) == {"clean"}
    share = frame.filter(metric="pinned_share")["value"]
    assert float(share.min()) > 0.8
    assert float(frame.filter(metric="cosine_turned")["value"].min()) > 0.9


def test_a_flipped_direction_is_inverted_where_it_is_not_mapped_and_its_twin_is_not():
    """Both write and read the causal axis the other way round: the function is the same, and R undoes the flip."""
    frame = found(evidence([member(EYE, 0, 0.05), member(flipped(), 1, 0.05)]))
    assert regimes(frame, "identity") == ["inverted"] * 2
    assert regimes(frame, "orthogonal") == ["clean"] * 2
    assert float(efficiencies(frame, "identity")["high"].max()) < -0.8
    twin = found(evidence([member(EYE, 0, 0.05), member(EYE, 1, 0.05)]))
    assert "inverted" not in twin["regime"].to_list()
    assert float(frame.filter(metric="cosine_turned")["value"].max()) < -0.8
    # the paper's ratios see no difference between the two
    for one in (frame, twin):
        ratio = one.filter(metric="cross_within_kl", map="identity", dose=1.0)
        assert ratio["convention"].unique().to_list() == ["paper"]
        assert ratio["value"].is_between(0.8, 1.2).all()


def test_a_contrast_of_something_else_is_not_said_to_steer():
    """Sides are written on other axes than kinds: their vector does nothing to kinds, wherever it goes."""
    other = {"name": "other", "positive": {"side": 1}, "negative": {"side": 0}}
    other["target"] = {"head": "kind", "positive": 1, "negative": 0}
    frame = found(evidence([member(R, seed, 0.05) for seed, R in enumerate(rotations(2))], [CONTRAST, other]))
    named = frame.filter(metric="regime")
    assert set(named.filter(contrast="other")["regime"]) == {"undetermined"}
    assert set(named.filter(contrast="kind", map="orthogonal", role="estimate")["regime"]) == {"clean"}


def test_a_sign_turns_vector_and_target_alike():
    """Steering backwards towards the other side works as well, with the same norm."""
    back = {**CONTRAST, "name": "back", "sign": -1}
    frame = found(evidence([member(EYE, seed, 0.05) for seed in range(2)], [CONTRAST, back]))
    norms = frame.filter(metric="vector_norm").sort("target", "contrast")["value"].to_list()
    assert norms[0] == norms[1]
    own = frame.filter(metric="on_target", role="ceiling", dose=1.0)
    assert float(own["value"].min()) > 1
    assert set(regimes(frame, "identity")) == {"clean"}


def test_every_number_has_its_ceiling_control_null_and_interval(rotated):
    effects = rotated.filter(metric="on_target")
    tested = effects.filter(dose=1.0)
    assert tested.filter(role="ceiling").height == 3
    assert tested.filter(role="estimate").height == 6 * len(MAPS)
    assert tested.filter(role="control")["control"].to_list() == [SHUFFLED] * 6
    assert tested.filter(role="null").height == 3
    assert effects.filter(dose=2.0, role="estimate")["map"].unique().sort().to_list() == [
        "identity",
        "orthogonal",
    ]
    plain = ["regime", "vector_norm", "pinned_share", "cosine_turned", "cosine_mapped"]
    measured = rotated.filter(~pl.col("metric").is_in(plain))
    assert measured["low"].null_count() == measured["high"].null_count() == 0
    assert (measured["low"] <= measured["value"] + 1e-12).all()
    assert (measured["value"] <= measured["high"] + 1e-12).all()
    assert rotated.filter(pl.col("metric") == "on_target")["n_documents"].null_count() == 0
    nothing = tested.filter(role="null").sort("target")
    own = tested.filter(role="ceiling").sort("target")
    assert (nothing["value"].abs() < 0.3 * own["value"]).all()
    assert (own["value"] > nothing["high"]).all()


def test_efficiency_and_the_paper_s_ratios_are_quotients_of_effects(rotated):
    quotients = {
        "transfer_efficiency": "on_target",
        "cross_within_kl": "kl",
        "cross_within_accuracy": "accuracy_loss",
    }
    for metric, effect in quotients.items():
        ratios = rotated.filter(metric=metric, map="orthogonal", role="estimate", dose=2.0)
        assert ratios.height == 6
        effects = rotated.filter(metric=effect, dose=2.0)
        for row in ratios.iter_rows(named=True):
            way = {"source": row["source"], "target": row["target"]}
            other = effects.filter(map="orthogonal", role="estimate", **way)["value"].item()
            own = effects.filter(role="ceiling", target=row["target"])["value"].item()
            assert row["value"] == pytest.approx(other / own, rel=1e-9)
        expected = [None] if metric == "transfer_efficiency" else ["paper"]
        assert ratios["convention"].unique().to_list() == expected


def test_the_same_members_give_the_same_rows(rotated):
    again = found(evidence([member(R, seed, 0.05) for seed, R in enumerate(rotations(3))]))
    assert again.equals(rotated)


def test_a_pair_s_numbers_do_not_depend_on_who_else_is_compared(rotated):
    """Effects and efficiencies; regimes are corrected for all that are decided."""
    two = found(evidence([member(R, seed, 0.05) for seed, R in enumerate(rotations(3))][:2]))
    for metric in ("on_target", "transfer_efficiency", "cosine_mapped"):
        keys = ["source", "target", "dose", "map", "control", "role"]
        small = two.filter(metric=metric).sort(keys)
        large = rotated.filter(pl.col("source").is_in([0, 1]) | pl.col("source").is_null(), metric=metric)
        large = large.filter(pl.col("target").is_in([0, 1])).sort(keys)
        kept = [*keys, "value"] if metric != "on_target" else keys
        assert small.select(kept).to_dicts() == [pytest.approx(row) for row in large.select(kept).to_dicts()]


def test_members_that_only_have_activations_are_not_steered():
    planted = planted_evidence(Planted("rotated", PlantedConfig(members=2, d=8)))
    assert not STUDIES["steering"].applies(planted)
    assert list(steering.study_rows(planted)) == []
    _, refused = study_tables(planted, ["steering"])
    assert refused == [("study steering", "it needs members that are models")]


def refusal(evidence: Evidence) -> str:
    tables, refused = study_tables(evidence, ["steering"])
    assert tables == {}
    return dict(refused)["study steering"]


MEMBERS = [member(EYE, seed, 0.05) for seed in range(2)]


def test_what_cannot_be_steered_says_what_there_is():
    with pytest.raises(RequestError, match="no contrast"):
        list(steering.study_rows(evidence(MEMBERS, [])))
    assert "no contrast" in refusal(evidence(MEMBERS, []))
    empty = {**CONTRAST, "positive": {"kind": 9}}
    assert "holds at 0 positions" in refusal(evidence(MEMBERS, [empty]))
    assert "at least 50" in refusal(evidence(MEMBERS, fit=8))
    assert "7 eval documents" in refusal(evidence(MEMBERS, eval=7))
    nowhere = evidence(MEMBERS)
    nowhere = replace(nowhere, options={"steering": Steering(site="nowhere")})
    assert "one of blocks.0.hook_resid_pre, blocks.1.hook_resid_mid" in refusal(nowhere)


def test_fewer_pairs_are_steered_with_fewer_pairs():
    whole = evidence([member(R, seed, 0.05) for seed, R in enumerate(rotations(3))])
    chain = replace(whole, pairs=pairs_of(whole.ends, "chain"))
    ways = (
        found(chain).filter(metric="regime", map="affine").select("source", "target").sort("source", "target")
    )
    assert ways.rows() == [(0, 1), (1, 0), (1, 2), (2, 1)]


# The real task: a transformer that has learned a little, and a copy of it in another basis.


def trained(config: DyckTransformerConfig, steps: int = 250) -> DyckTransformer:
    """A small member after some training: it tells tokens, and depths a little."""
    model, task = config.untrained(0), Dyck()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        chunk = task.fresh(0, step, 1024, CPU)
        said = model(*chunk.arguments, **chunk.keywords)
        losses = [
            torch.nn.functional.cross_entropy(own[chunk.kept], chunk.labels[head][chunk.kept])
            for head, own in said.items()
        ]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def copied() -> pl.DataFrame:
    config = DyckTransformerConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32, init_std=0.1)
    model = trained(config)
    models = [model, in_another_basis(model, haar_matrix(16, 1))]
    task, probe = Dyck(), ProbeConfig(200, 60)
    made = Functions(models, config.sites, task, probe, CPU)
    ends = [(0, 5), (1, 5)]
    source = ModelActivations(models, config.sites, task, probe, CPU)
    whole = Evidence("dyck", ends, pairs_of(ends), source, functions=lambda _: made)
    return found(replace(whole, options={"steering": Steering(doses=(1.0,))}))


def test_the_directions_of_dyck_carry_over_to_a_rotated_copy_through_r(copied):
    assert copied["site"].unique().to_list() == ["blocks.1.hook_resid_mid"]
    assert {"depth", "closer"} <= set(copied.filter(group="named")["contrast"].drop_nulls())
    for name in ("orthogonal", "affine"):
        assert set(regimes(copied, name)) <= {"clean", "undetermined"}
        assert "clean" in regimes(copied, name)
        efficiency = copied.filter(metric="transfer_efficiency", map=name, role="estimate")["value"]
        assert efficiency.is_between(0.98, 1.02).all()


def test_at_least_fifty_directions_are_tried_at_one_norm(copied):
    systematic = copied.filter(group="systematic")
    assert systematic.filter(metric="regime")["contrast"].n_unique() >= 50
    assert systematic.filter(metric="vector_norm").height == 2
    assert systematic["dose"].null_count() == systematic.height
    assert DIRECTIONS >= 100
    works = copied.filter(metric="share_working").sort("map")
    assert works["map"].to_list() == ["identity", "orthogonal"]
    assert works["value"][1] == 1.0
    assert works["high"][0] < 0.5
    assert copied.filter(metric="logistic_slope", map="orthogonal").is_empty()  # all of them work
