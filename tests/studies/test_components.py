"""What one member says of another's components: planted copies agree as they must, and strangers do not."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch

sys.path.append(
    str(Path(__file__).parent.parent / "components")
)  # for the small models, which are made there

from rotated_models import haar_matrix, rotated
from toy_models import SMALL, dyck_functions, heads_permuted

from polymorph.evidence.evidence import Evidence, History, planted_evidence
from polymorph.evidence.pairs import pairs_of
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import table
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.studies.components.members import measured_members
from polymorph.studies.components.rows import study_rows as component_rows
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables

ORDERS = ([2, 0, 3, 1], [1, 2, 3, 0])


@pytest.fixture(scope="module")
def members() -> dict[int, DyckTransformer]:
    """A member, a copy with its heads in another order, one in another basis, and a stranger."""
    first = DyckTransformer(SMALL, 11)
    return {
        0: first,
        1: heads_permuted(first, ORDERS),
        2: rotated(first, haar_matrix(SMALL.d_model, 4)),
        3: DyckTransformer(SMALL, 12),
    }


@pytest.fixture(scope="module")
def evidence(members) -> Evidence:
    ends = [(seed, 9) for seed in members]

    def functions(chosen):
        """At step 5 a member is a stranger, so that its earlier self is no ceiling to be relied on."""
        return dyck_functions([members[seed] if step == 9 else members[3] for seed, step in chosen], 10)

    histories = [History(seed, (0, 5, 9), partial(lambda steps: None)) for seed in members]
    source = planted_evidence(Planted("rotated", PlantedConfig(d=4, members=4, documents=24))).source
    return Evidence("c", ends, pairs_of(ends), source, blocks=6, histories=histories, functions=functions)


@pytest.fixture(scope="module")
def rows(evidence) -> pl.DataFrame:
    return table(component_rows(evidence), STUDIES["components"].columns)


def value(rows: pl.DataFrame, metric: str = "effect_correlation", **about) -> float:
    about = {"kind": "parts", "attribution": "integrated_gradients", "convention": None, **about}
    if metric == "effect_correlation":
        about = {"statistic": "pearson", **about}
    tests = [pl.col(name).eq_missing(pl.lit(of)) for name, of in about.items()]
    return rows.filter(pl.col("metric") == metric, pl.col("role") != "null", *tests)["value"].item()


def test_a_rotated_copy_agrees_with_r_one_without_any_alignment(rows, members):
    """Effects are of what components add, whatever the basis: bar C cannot see a rotation, and proves none."""
    assert not torch.allclose(members[0].W_E, members[2].W_E, atol=0.1)
    for source, target in ((0, 2), (2, 0)):
        r = value(rows, source=source, target=target, assignment="name")
        assert r == pytest.approx(1, abs=1e-4)  # the sum over points is good to 1 %
        assert value(
            rows, source=source, target=target, assignment="name", attribution="ablation"
        ) == pytest.approx(1, abs=1e-6)


def test_a_stranger_does_not(rows):
    assert value(rows, source=0, target=3, assignment="name") < 0.95


def test_permuted_heads_have_a_low_r_by_name_and_one_by_the_best_assignment(rows):
    about = {"source": 0, "target": 1, "attribution": "ablation"}
    named, best = (value(rows, assignment=assignment, **about) for assignment in ("name", "best"))
    assert best == pytest.approx(1, abs=1e-6)
    assert named < 0.97
    p = {a: value(rows, "p_value", statistic="pearson", assignment=a, **about) for a in ("name", "best")}
    assert p["best"] < 0.05
    assert p["name"] > p["best"]
    same = value(rows, "p_value", statistic="pearson", assignment="name", **{**about, "target": 2})
    assert same == pytest.approx(1 / 576)


def test_gradients_agree_with_ablation_within_every_member_whatever_it_is(rows):
    for seed in range(4):
        assert value(rows, source=seed, target=seed, source_step=9, assignment="name") > 0.999
        paper = value(rows, source=seed, target=seed, source_step=9, assignment="name", convention="paper")
        assert paper > 0.9
    error = rows.filter(metric="ig_error")
    assert error.height == 4 * (10 + 2 + 2)
    assert float(error["value"].max()) <= 0.01
    assert set(rows.filter(metric="ig_points")["value"]) <= {16, 32, 64, 128, 256, 512, 1024}


def test_every_effect_has_its_heads_its_interval_and_its_counts(rows, evidence):
    effects = rows.filter(metric="ablation_effect", target=0)
    assert set(effects["head"]) == {"tok", "depth", "valid", "all"}
    assert set(effects["kind"]) == {"head", "mlp", "block", "stream"}
    by_head = effects.filter(pl.col("head") != "all").group_by("kind", "component").agg(pl.col("value").sum())
    together = effects.filter(pl.col("head") == "all").join(by_head, on=["kind", "component"])
    assert together["value"].to_list() == pytest.approx(together["value_right"].to_list())
    assert effects["low"].null_count() == 0
    counted = measured_members(evidence)[0].documents
    assert set(effects["n_documents"]) == {len(counted.tokens)}
    assert set(effects["n_tokens"]) == {counted.n_tokens}
    assert bool((effects["low"] < effects["value"]).all())


def test_no_interval_of_a_correlation_passes_one(rows):
    r = rows.filter(pl.col("metric").is_in(["effect_correlation", "cumulative_correlation"]))
    r = r.filter(
        pl.col("statistic").fill_null("pearson") != "concordance"
    )  # a share, which has no such scale
    assert float(r["high"].max()) <= 1
    assert float(r["low"].min()) >= -1


def test_leaving_one_out_names_the_component(rows):
    left = rows.filter(
        metric="effect_correlation", statistic="leave_one_out", source=0, target=3, assignment="name"
    )
    assert set(left.filter(attribution="ablation")["component"]) == {
        f"L{layer}{part}" for layer in (0, 1) for part in ("H0", "H1", "H2", "H3", "MLP")
    }


def test_rankings_of_copies_gain_what_the_own_one_gains(rows):
    for source, assignment in ((2, "name"), (1, "best")):
        about = {"source": source, "target": 0, "order": "source", "assignment": assignment}
        # rankings by gradients and by ablation may differ where two effects are within 1 % of each other
        assert value(rows, "ranking_gain", **about) == pytest.approx(1, abs=0.05)
        assert value(rows, "curve_distance", **about) < 0.05
    stranger = {"source": 3, "target": 0, "order": "source", "assignment": "name"}
    assert value(rows, "ranking_gain", **stranger) < 0.95
    curve = rows.filter(metric="cumulative_effect", target=0, order="own").sort("removed")
    assert curve["removed"].to_list() == list(range(1, 11))
    random = rows.filter(metric="cumulative_effect", target=0, order="random", assignment="name").sort(
        "removed"
    )
    assert set(random["role"]) == {"null"}
    assert random["value"][-1] == pytest.approx(curve["value"][-1])  # all of them are removed


def test_the_ceiling_is_the_member_at_its_previous_checkpoint(rows):
    """Which here is a stranger: the ceiling is low, and of the stranger itself it is 1."""
    about = {"source_step": 5, "assignment": "name", "attribution": "ablation"}
    assert value(rows, source=3, target=3, **about) == pytest.approx(1)
    assert value(rows, source=0, target=0, **about) == pytest.approx(
        value(rows, source=3, target=0, assignment="name", attribution="ablation")
    )


def test_the_same_rows_follow_whatever_else_is_compared(rows, evidence):
    fewer = replace(evidence, ends=evidence.ends[:2], pairs=evidence.pairs[:1])
    alone = table(component_rows(fewer), STUDIES["components"].columns)
    both = rows.filter(pl.col("target") < 2, pl.col("source").is_null() | (pl.col("source") < 2))
    numbers = ["value", "low", "high"]
    assert alone.drop("n_seeds", *numbers).equals(both.drop("n_seeds", *numbers))
    for name in numbers:
        assert alone[name].to_list() == both[name].to_list()


def test_what_takes_too_long_is_measured_and_not_predicted(evidence, monkeypatch):
    from polymorph.studies.components import members as components

    monkeypatch.setattr(components, "AFFORDED", {"cpu": 0.0})
    fewer = replace(evidence, ends=evidence.ends[:2], pairs=evidence.pairs[:1])
    found = table(component_rows(fewer), STUDIES["components"].columns)
    assert "integrated_gradients" not in found["metric"].to_list()
    assert set(found.filter(metric="effect_correlation")["attribution"]) == {"ablation"}
    assert found.filter(metric="ablation_effect").height > 0


def test_without_models_it_is_refused_with_what_it_needs():
    evidence = planted_evidence(Planted("rotated", PlantedConfig(d=4, members=3, documents=8)))
    assert not STUDIES["components"].applies(evidence)
    tables, refused = study_tables(evidence, ["components"])
    assert tables == {}
    assert refused == [("study components", f"it needs {STUDIES['components'].missing}")]
