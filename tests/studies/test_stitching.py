"""Lower and upper parts that fit together by construction, and others that do not."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from rotated_models import (
    CONFIG,
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

from polymorph.alignment.controls import covariance_only
from polymorph.alignment.families import FAMILIES, FITS, fit_ladder, rungs
from polymorph.alignment.maps import Map
from polymorph.alignment.pairings import chunk_generator
from polymorph.alignment.support import filled
from polymorph.evidence import evidence, function_scores
from polymorph.evidence.evidence import Evidence, planted_evidence
from polymorph.evidence.planted import Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row, table
from polymorph.models.functions import Functions
from polymorph.studies.registry import STUDIES
from polymorph.studies.stitching import rows as stitching
from polymorph.studies.stitching.rows import NOT_RUN
from polymorph.studies.stitching.rows import study_rows as stitching_rows
from polymorph.studies.tables import study_tables
from polymorph.tasks.config import ProbeConfig

SITES = tuple(CONFIG.sites)
MAPS = [name for name in rungs() if name not in NOT_RUN]
HEADS = ("tok", "depth", "valid", "all")
ORIGINAL = random_model(0)
TURNED = rotated(ORIGINAL, haar_matrix(16, 5))
OTHER = random_model(1)
TASK = Answered(ORIGINAL)


def members(models: Mapping[tuple[int, int], object], **more: object) -> Members:
    return Members(models, **{"task": TASK, **more})  # type: ignore[arg-type]


def rows_of(given: Evidence) -> list[Row]:
    rows = list(stitching_rows(given))
    table(rows, STUDIES["stitching"].columns)  # which refuses two rows with one key
    return rows


def found(
    rows: list[Row], metric: str, convention: str | None = None, **about: object
) -> dict[tuple[object, ...], Row]:
    """By source, target, site, map and head."""
    control = about.pop("control", None)
    chosen = [row for row in rows if (row.metric, row.convention) == (metric, convention)]
    chosen = [row for row in chosen if row.extra.get("control") == control]
    chosen = [row for row in chosen if all(getattr(row, name) == value for name, value in about.items())]
    return {(row.source, row.target, row.site, row.map, row.extra["head"]): row for row in chosen}


@pytest.fixture(scope="module")
def planted() -> list[Row]:
    """A model, and a copy of it turned in its residual stream, each with what it was before."""
    before = near(ORIGINAL, 0.03, 7)
    models = {
        (0, 0): OTHER,
        (0, 4): before,
        (0, 9): ORIGINAL,
        (1, 4): rotated(before, haar_matrix(16, 6)),
        (1, 9): TURNED,
    }
    return rows_of(members(models).evidence)


@pytest.mark.parametrize("site", SITES)
def test_through_r_nothing_is_lost_and_through_the_identity_a_lot(planted: list[Row], site: str) -> None:
    for head in HEADS:
        for pair in ((0, 1), (1, 0)):
            for name in ("orthogonal", "similarity"):
                key = (*pair, site, name, head)
                for side in ("source", "target"):
                    assert abs(found(planted, f"delta_loss_{side}", role="estimate")[key].value) < 1e-5
                    assert abs(found(planted, f"kl_{side}", role="estimate")[key].value) < 1e-9
                recovered = found(planted, "loss_recovered", "constant_answer", role="estimate")
                assert key not in recovered or recovered[key].value == pytest.approx(1, abs=1e-4)
            for name in ("identity", "shift", "signed_permutation"):
                key = (*pair, site, name, "all")
                assert found(planted, "delta_loss_target", role="estimate")[key].value > 1
                assert found(planted, "kl_source", role="estimate")[key].value > 1


@pytest.mark.parametrize("control", ["documents_permuted", "covariance_only", "untrained"])
def test_maps_that_have_not_seen_the_pairing_recover_nothing(planted: list[Row], control: str) -> None:
    """At the first site an untrained lower part has the tokens, which is all there is: an affine map suffices.

    Behind it some of the tokens is still there. Of random signs many can be right by luck, never all.
    """
    recovered = found(planted, "loss_recovered", "constant_answer", control=control)
    recovered = {key: row for key, row in recovered.items() if key[4] == "all"}
    assert {row.role for row in recovered.values()} == {"control"}
    for (_, _, site, name, _), row in recovered.items():
        if (control, name, site) == ("untrained", "affine", SITES[0]):
            assert row.value > 0.98
        else:
            assert row.value < (0.15 if control == "documents_permuted" else 0.75)
    values = sorted(row.value for row in recovered.values())
    assert values[len(values) // 2] < 0


def test_what_knows_no_tokens_is_of_no_use_through_any_map() -> None:
    rows = rows_of(members({(0, 9): ORIGINAL, (1, 9): deaf(OTHER)}).evidence)
    recovered = found(rows, "loss_recovered", "constant_answer", role="estimate")
    values = {key: row.value for key, row in recovered.items() if key[0] == 1 and key[4] == "all"}
    assert {key[3] for key in values} == set(MAPS)
    assert max(values.values()) < 0.15


def test_a_family_that_is_added_is_stitched_and_one_that_is_not_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FAMILIES, "twin", replace(FAMILIES["orthogonal"], name="twin", freedom=4.5))
    rows = rows_of(members({(0, 9): ORIGINAL, (1, 9): TURNED}).evidence)
    losses = found(rows, "loss", role="estimate")
    for (source, target, site, name, head), row in losses.items():
        if name == "twin":
            assert row.value == losses[source, target, site, "orthogonal", head].value
    assert {key[3] for key in losses} == {*MAPS, "twin"}
    assert NOT_RUN.keys() | {key[3] for key in losses} == FAMILIES.keys()
    assert all(NOT_RUN.values())


def test_unrelated_members_share_the_tokens_and_no_computation() -> None:
    """Through an affine map, at the first site, everything carries over; rigid maps and later sites say otherwise."""
    rows = rows_of(members({(0, 9): ORIGINAL, (1, 9): OTHER}).evidence)
    lost = found(rows, "delta_loss_target", role="estimate")
    assert abs(lost[1, 0, SITES[0], "affine", "all"].value) < 0.02
    for site in SITES[1:]:
        assert lost[1, 0, site, "affine", "all"].low > 0.1
    for name in MAPS[:-1]:
        assert all(lost[1, 0, site, name, "all"].low > 0.5 for site in SITES)


def test_a_member_stitched_to_itself_is_itself(planted: list[Row]) -> None:
    same = [row for row in planted if row.role == "ceiling" and row.source_step == row.target_step]
    assert {(row.source, row.target, row.map, row.n_seeds) for row in same} == {
        (0, 0, "identity", 1),
        (1, 1, "identity", 1),
    }
    for metric, value in (("delta_loss_target", 0), ("kl_source", 0), ("loss_recovered", 1)):
        chosen = [row for row in same if row.metric == metric]
        assert chosen
        assert all((row.value, row.low, row.high) == (value, value, value) for row in chosen)


def test_the_ceiling_is_the_previous_checkpoint_under_the_last(planted: list[Row]) -> None:
    two = [row for row in planted if row.role == "ceiling" and row.source_step != row.target_step]
    assert {(row.source, row.source_step, row.target_step) for row in two} == {(0, 4, 9), (1, 4, 9)}
    lost = found(two, "delta_loss_target")
    for site in SITES[1:]:
        assert lost[0, 0, site, "identity", "all"].value < 0.5  # it moved a little, and did not turn
        assert lost[1, 1, site, "identity", "all"].value > 1  # it turned
        assert (
            abs(lost[1, 1, site, "orthogonal", "all"].value - lost[0, 0, site, "orthogonal", "all"].value)
            < 1e-3
        )


def by_hand(functions: Functions, site: str, fitted: Map) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Of member 0 under member 1: loss by head less that of member 1, KL from member 1, and documents."""
    (chunk,) = functions.inputs("eval")
    said, own = functions.stitched(0, 1, chunk, site, fitted), functions.logits(1, chunk)
    labels = {head: values[chunk.kept] for head, values in chunk.labels.items()}
    each = {
        head: F.cross_entropy(said[head].double(), labels[head], reduction="none")
        - F.cross_entropy(own[head].double(), labels[head], reduction="none")
        for head in said
    }
    p, q = (by["depth"].double().log_softmax(-1) for by in (own, said))
    return each, (p.exp() * (p - q)).sum(-1), chunk.document


def check(row: Row, values: Tensor, document: Tensor, blocks: int = 8) -> None:
    block = document % blocks
    parts = torch.stack([values[block != b].mean() for b in range(blocks)])
    error = ((parts - parts.mean()).square().sum() * (blocks - 1) / blocks).sqrt()
    half = float(student.ppf(0.975, blocks - 1) * error)
    assert row.value == pytest.approx(float(values.mean()), abs=1e-7)
    assert (row.low, row.high) == pytest.approx((row.value - half, row.value + half), abs=1e-7)
    assert (row.n_tokens, row.n_documents) == (len(values), 48)


def test_maps_are_those_of_the_ladder_and_numbers_what_they_say() -> None:
    given = members({(3, 9): ORIGINAL, (5, 9): OTHER}, sites=SITES[2:3])
    whole, site = given.evidence, SITES[2]
    rows = rows_of(whole)
    functions, moments = given.functions(whole.ends), whole.at(site)
    ladder = fit_ladder(filled(moments.fit))
    maps: dict[tuple[str, str | None], Map] = {(name, None): ladder[name][0] for name in MAPS}
    shuffled = moments.fit_documents_permuted.total()
    maps |= {(name, "documents_permuted"): FITS[name](shuffled)[0] for name in ("orthogonal", "affine")}
    drawn = covariance_only(moments.fit.total()[0], chunk_generator(0, 3, 9, 5, 9))
    maps["orthogonal", "covariance_only"] = drawn
    for (name, control), fitted in maps.items():
        losses, kl, document = by_hand(functions, site, fitted)
        lost = found(rows, "delta_loss_target", control=control)
        check(lost[3, 5, site, name, "depth"], losses["depth"], document)
        check(lost[3, 5, site, name, "all"], torch.stack([*losses.values()]).sum(0), document)
        check(found(rows, "kl_target", control=control)[3, 5, site, name, "depth"], kl, document)


def test_what_is_recovered_is_counted_from_two_constants(planted: list[Row]) -> None:
    """The entropy of the labels, and the target with its mean in place of the site."""
    key = (0, 1, SITES[2], "identity", "all")
    loss = found(planted, "loss", role="estimate")[key].value
    own = loss - found(planted, "delta_loss_target", role="estimate")[key].value
    ablated = found(planted, "loss", control="predict_mean")[None, 1, SITES[2], None, "all"]
    assert ablated.source_step is None
    recovered = found(planted, "loss_recovered", "predict_mean", role="estimate")[key].value
    assert recovered == pytest.approx((ablated.value - loss) / (ablated.value - own))
    functions = members({(0, 9): ORIGINAL}).functions([(0, 9)])
    (chunk,) = functions.inputs("eval")
    entropy = 0.0
    for labels in chunk.labels.values():
        shares = torch.bincount(labels[chunk.kept]).double() / int(chunk.kept.sum())
        entropy -= float(torch.xlogy(shares, shares).sum())
    recovered = found(planted, "loss_recovered", "constant_answer", role="estimate")[key].value
    assert recovered == pytest.approx((entropy - loss) / (entropy - own))
    assert not found(planted, "kl_source", control="predict_mean")


def test_a_target_that_knows_nothing_recovers_nothing_and_that_is_left_out() -> None:
    """OTHER is worse at these labels than a constant answer, ORIGINAL is not."""
    rows = rows_of(members({(0, 9): ORIGINAL, (1, 9): OTHER}, sites=SITES[2:3]).evidence)
    recovered = found(rows, "loss_recovered", "constant_answer")
    assert {key[1] for key in recovered if key[4] == "all"} == {0}


def test_parts_and_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {(0, 0): OTHER, (0, 4): near(ORIGINAL, 0.1, 3), (0, 9): ORIGINAL, (1, 9): TURNED, (2, 9): OTHER}
    given = members(models, probe=ProbeConfig(fit=32, eval=16), sites=SITES[2:3])
    once, refused = study_tables(given.evidence, ["stitching"])
    monkeypatch.setattr(evidence, "LINED_UP", 1)
    monkeypatch.setattr(function_scores, "AT_ONCE", 2000)
    again, _ = study_tables(given.evidence, ["stitching"])
    assert refused == []
    numbers = ["value", "low", "high"]
    assert once["stitching"].drop(numbers).equals(again["stitching"].drop(numbers))
    for name in numbers:
        apart = (once["stitching"][name] - again["stitching"][name]).abs()
        assert float(apart.max()) < 1e-3  # type: ignore[arg-type]  # blocks of other pairs move a cross-validated ridge's last bits
    assert STUDIES["stitching"].scope == "pairs"


def test_long_documents_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    given = members({(0, 9): ORIGINAL, (1, 9): TURNED}, sites=SITES[2:3])
    lengths = torch.bincount(next(iter(given.functions([]).inputs("eval"))).document)
    monkeypatch.setattr(stitching, "TOKENS", 300)
    row = rows_of(given.evidence)[0]
    within = int((lengths.cumsum(0) <= 300).sum())
    assert 2 < within < 30
    assert (row.n_documents, row.n_tokens) == (within, int(lengths[:within].sum()))
    monkeypatch.setattr(stitching, "TOKENS", 1)
    assert rows_of(given.evidence)[0].n_documents == 2
    monkeypatch.setattr(stitching, "TOKENS", 4096)
    monkeypatch.setattr(stitching, "DOCUMENTS", 5)
    assert rows_of(given.evidence)[0].n_documents == 5


def test_members_of_different_width_are_refused_by_name() -> None:
    narrow = random_model(1, replace(CONFIG, d_model=8))
    given = members({(3, 9): ORIGINAL, (5, 9): narrow})
    with pytest.raises(
        ValueError, match=r"hook_resid_pre: seed 3 has 16 dimensions and seed 5 has 8; the upper part"
    ):
        rows_of(given.evidence)


def test_a_site_that_a_model_lacks_is_refused_by_name() -> None:
    given = members({(0, 9): ORIGINAL, (1, 9): OTHER}, sites=("blocks.7.hook_resid_post",))
    with pytest.raises(ValueError, match=r"seed 0 has no hook point 'blocks\.7\.hook_resid_post'"):
        rows_of(given.evidence)


def test_it_is_asked_of_models_alone() -> None:
    given = planted_evidence(Planted("rotated", PlantedConfig(d=8, members=2, documents=32, tokens=4)))
    assert not STUDIES["stitching"].applies(given)
    assert list(stitching_rows(given)) == []
    assert study_tables(given, ["stitching"])[1] == [("study stitching", "it needs members that are models")]
