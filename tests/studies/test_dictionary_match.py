"""What the study `dictionary_match` finds where the truth is planted."""

from dataclasses import replace

import pytest
import torch
from planted_saes import FEATURES, permuted, trained

from polymorph.evidence.evidence import Evidence, planted_evidence
from polymorph.evidence.planted import SITE, Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row, table
from polymorph.saes.trained import GivenDictionaries
from polymorph.studies.dictionary_match import rows as dictionary_match
from polymorph.studies.dictionary_match.arrangements import ARRANGEMENTS
from polymorph.studies.dictionary_match.rows import study_rows as dictionary_match_rows
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables

CONFIG = PlantedConfig(d=12, members=2, documents=64, tokens=16, noise=0.0)
FAMILY = "standard_x8"
METRICS = ("match_mean_max", "match_share", "match_hungarian", "match_hungarian_share")
ONE, OTHER = 1, 2
PLANTED = Planted("rotated", CONFIG)


def sae(member: int, seed: int, variant="distinct", dead: int = 0, planted: Planted = PLANTED):
    """Of equal seeds, the same functions of the latent signal, in another order of features for member 1."""
    truth, generator = planted.truth, torch.Generator().manual_seed(seed)
    own = trained(truth.weights[member], truth.means[member], generator, dead=dead, variant=variant)
    return permuted(own, torch.randperm(FEATURES, generator=generator)) if member == 1 else own


def evidence_of(*saes, planted: Planted = PLANTED) -> Evidence:
    """Of (member, SAE)."""
    given = {(member, 0, SITE, FAMILY, one.variant): one for member, one in saes}
    return replace(planted_evidence(planted), dictionaries=GivenDictionaries(given))


def rows_of(*saes, planted: Planted = PLANTED) -> list[Row]:
    return list(dictionary_match_rows(evidence_of(*saes, planted=planted)))


def find(rows: list[Row], metric: str, convention: str | None, arrangement: str = "distinct", **about) -> Row:
    about = {"source": 0, "metric": metric, "convention": convention} | about
    chosen = [row for row in rows if row.extra["arrangement"] == arrangement]
    (row,) = [row for row in chosen if all(getattr(row, key) == wanted for key, wanted in about.items())]
    return row


def value(*args, **about) -> float:
    return find(*args, **about).value


@pytest.fixture(scope="module")
def copies() -> list[Row]:
    """The features of member 0 turned and put in another order; the last ten never fire."""
    return rows_of((0, sae(0, ONE, dead=10)), (1, sae(1, ONE, dead=10)))


@pytest.fixture(scope="module")
def strangers() -> list[Row]:
    return rows_of((0, sae(0, ONE)), (1, sae(1, OTHER)))


@pytest.mark.parametrize("convention", ["decoder", "decoder_live", "joint", "joint_live"])
def test_rotated_copies_match_through_r_and_at_chance_as_they_are(copies, convention):
    for metric in METRICS:
        for source in (0,) if "hungarian" in metric else (0, 1):
            found = value(copies, metric, convention, map="orthogonal", source=source)
            assert found == pytest.approx(1, abs=1e-3)
    null = find(copies, "match_mean_max", convention.removesuffix("_live"), "random")
    raw = value(copies, "match_mean_max", convention, map="identity")
    assert raw < null.high + 0.03 < 0.95


def test_both_directions_stand_there_and_an_assignment_once(copies):
    for metric, sources in (("match_share", {0, 1}), ("match_hungarian", {0})):
        chosen = [row for row in copies if row.metric == metric and row.extra["arrangement"] == "distinct"]
        assert {row.source for row in chosen} == sources


def test_unrelated_dictionaries_match_as_random_ones(strangers):
    for metric in METRICS:
        null = find(strangers, metric, "decoder", "random")
        assert null.role == "null"
        assert null.low < null.value < null.high
        for name in ("identity", "orthogonal"):
            found = value(strangers, metric, "decoder", map=name)
            assert null.low - 0.05 < found < null.high + 0.05


def test_the_joint_null_is_the_widest_case(strangers):
    """Encoders of their own match less than encoders that are the decoders."""
    found = value(strangers, "match_mean_max", "joint", map="orthogonal")
    assert found < find(strangers, "match_mean_max", "joint", "random").low


def test_features_that_fire_together_are_matched(copies, strangers):
    assert value(copies, "match_hungarian", "activations") > 0.999
    assert value(copies, "live_features", "activations") == FEATURES - 10
    assert value(strangers, "match_hungarian", "activations") < 0.9
    control = find(copies, "match_hungarian", "activations", "permuted")
    assert control.role == "control"
    assert control.value < 0.3


def test_the_correlations_are_numpys(strangers):
    chunks = list(PLANTED.chunks("eval"))
    values = torch.cat([chunk.values[SITE] for chunk in chunks], dim=1)
    features = [
        one.sae.encode(values[member].float()) for member, one in enumerate((sae(0, ONE), sae(1, OTHER)))
    ]
    live = [each[:, (each != 0).any(0)] for each in features]
    wanted = torch.corrcoef(torch.cat(live, dim=1).double().mT)[: live[0].shape[1], live[0].shape[1] :]
    found = value(strangers, "match_mean_max", "activations")
    assert found == pytest.approx(float(wanted.max(1).values.mean()), abs=1e-9)


def test_dead_features_count_in_the_papers_convention_alone():
    """The ten dead features of the second SAE point somewhere else."""
    other = sae(1, ONE, dead=10)
    dead = (other.sae.b_enc < -10).nonzero().flatten()
    other.sae.W_dec.data[dead] = -other.sae.W_dec.data[dead]
    rows = rows_of((0, sae(0, ONE, dead=10)), (1, other))
    assert value(rows, "match_hungarian_share", "decoder_live", map="orthogonal") == 1
    assert value(rows, "match_hungarian_share", "decoder", map="orthogonal") < 1
    assert value(rows, "match_hungarian", "decoder", map="orthogonal") < 0.95


def test_each_way_is_about_the_features_of_its_source():
    """Of forty live features twenty have their like among the twenty, which all have theirs."""
    rows = rows_of((0, sae(0, ONE)), (1, sae(1, ONE, dead=20)))
    about = {"map": "orthogonal", "convention": "joint_live"}
    assert value(rows, "match_share", source=1, **about) == 1
    assert value(rows, "match_share", source=0, **about) < 0.8
    for source, live in ((0, FEATURES), (1, FEATURES - 20)):
        assert value(rows, "live_features", "activations", source=source) == live


def test_saes_that_never_fire_have_no_row_among_the_live():
    rows = rows_of(*((member, sae(member, ONE, dead=FEATURES)) for member in (0, 1)))
    assert value(rows, "live_features", "activations") == 0
    conventions = {row.convention for row in rows if row.metric in METRICS}
    assert conventions == {"decoder", "joint"}


def test_a_common_initialisation_is_seen_for_what_it_is():
    """SAEs that stayed where they began: alike as they are, whatever the data, and not through R."""
    start = trained(torch.eye(12).double(), torch.zeros(12).double(), torch.Generator().manual_seed(3))
    stayed = [
        (member, replace(start, variant=variant)) for member in (0, 1) for variant in ("shared", "unrelated")
    ]
    rows = rows_of(*stayed)
    for arrangement, role in (
        ("shared", "estimate"),
        ("unrelated", "control"),
        ("shared_to_unrelated", "control"),
    ):
        row = find(rows, "match_share", "decoder", arrangement, map="identity")
        assert (row.value, row.role) == (1, role)
        assert value(rows, "match_mean_max", "decoder", arrangement, map="orthogonal") < 0.9
    assert {row.source for row in rows if row.extra["arrangement"] == "shared_to_unrelated"} >= {0, 1}


def test_either_member_may_have_the_unrelated_one():
    """R goes the other way then."""
    saes = [(member, sae(member, ONE, variant)) for member in (0, 1) for variant in ("shared", "unrelated")]
    rows = rows_of(*saes)
    for source in (0, 1):
        about = {"map": "orthogonal", "source": source}
        assert value(rows, "match_hungarian", "joint", "shared_to_unrelated", **about) > 0.999


def test_the_ceiling_is_two_saes_of_one_member():
    again = replace(sae(0, ONE), variant="again")
    rows = rows_of((0, sae(0, ONE)), (0, again), (1, sae(1, OTHER)))
    row = find(rows, "match_hungarian", "activations", "again")
    assert (row.target, row.role, row.n_seeds) == (0, "ceiling", 1)
    assert row.value == pytest.approx(1, abs=1e-6)
    ceilings = [row for row in rows if row.role == "ceiling" and row.metric in METRICS]
    assert {row.map for row in ceilings} == {"identity", None}
    assert {row.source for row in ceilings} == {0}


def test_it_is_said_which_arrangements_there_are(strangers):
    counts = {row.extra["arrangement"]: row.value for row in strangers if row.metric == "comparisons"}
    assert counts == {one.name: 0 for one in ARRANGEMENTS} | {"distinct": 1, "permuted": 1}
    alone = rows_of((0, sae(0, ONE)))
    assert {row.metric for row in alone} == {"comparisons"}
    assert {row.value for row in alone} == {0}


def test_comparisons_held_one_by_one_give_the_same_rows(copies, monkeypatch):
    monkeypatch.setattr(dictionary_match, "TOGETHER", 1)
    assert rows_of((0, sae(0, ONE, dead=10)), (1, sae(1, ONE, dead=10))) == copies


def test_many_chunks_are_read_as_one():
    many = Planted("rotated", replace(CONFIG, documents=300))
    saes = [(member, sae(member, ONE, planted=many)) for member in (0, 1)]
    row = find(rows_of(*saes, planted=many), "match_hungarian", "activations")
    assert row.value > 0.999
    assert row.n_tokens == 300 * CONFIG.tokens


def test_every_row_has_a_key_of_its_own():
    variants = ("distinct", "shared", "again", "unrelated")
    three = Planted("rotated", replace(CONFIG, members=3))
    saes = [
        (member, sae(member, number, variant, planted=three))
        for member in range(3)
        for number, variant in enumerate(variants)
    ]
    frame = table(rows_of(*saes, planted=three), STUDIES["dictionary_match"].columns)
    counts = frame.filter(metric="comparisons")
    assert dict(zip(counts["arrangement"], counts["value"], strict=True)) == {
        "distinct": 3,
        "shared": 3,
        "again": 3,
        "unrelated": 3,
        "shared_to_unrelated": 6,
        "permuted": 3,
    }


def test_saes_of_another_width_are_refused():
    narrow = Planted("rotated", replace(CONFIG, d=10))
    saes = [(member, sae(member, ONE, planted=narrow)) for member in (0, 1)]
    with pytest.raises(ValueError, match=r"standard_x8 reads \[n, 10\], not activations \(1024, 12\)"):
        rows_of(*saes)


def test_it_applies_where_two_saes_can_be_compared():
    assert STUDIES["dictionary_match"].applies(evidence_of((0, sae(0, ONE)), (1, sae(1, OTHER))))
    assert STUDIES["dictionary_match"].applies(evidence_of((0, sae(0, ONE)), (0, sae(0, OTHER, "again"))))
    alone = evidence_of((0, sae(0, ONE)))
    assert not STUDIES["dictionary_match"].applies(alone)
    _, refused = study_tables(alone, ["dictionary_match"])
    assert "stage=sae" in dict(refused)["study dictionary_match"]
