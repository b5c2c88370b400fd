"""What the study `firing` finds where the truth is planted."""

from dataclasses import replace

import pytest
import torch
from planted_saes import FEATURES, trained

from polymorph.evidence.evidence import Evidence, History, planted_evidence
from polymorph.evidence.pairs import pairs_of
from polymorph.evidence.planted import SITE, Planted
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.evidence.rows import Row, table
from polymorph.saes.trained import GivenDictionaries
from polymorph.studies.firing.rows import PERMUTED
from polymorph.studies.firing.rows import study_rows as firing_rows
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables

CONFIG = PlantedConfig(d=12, members=3, documents=64, tokens=16, noise=0.0)
FAMILY = "standard_x8"
MEAN, SHARE = "firing_correlation_mean", "firing_correlation_share"
DEAD = 10


def sae(planted: Planted, member: int, dead: int = 0):
    truth = planted.truth
    generator = torch.Generator().manual_seed(1)
    return trained(truth.weights[member], truth.means[member], generator, dead=dead)


def evidence_of(kind: str = "rotated", dead: int = 0, members=(0, 1, 2), config=CONFIG) -> Evidence:
    planted = Planted(kind, config)
    saes = {(member, 0, SITE, FAMILY, "distinct"): sae(planted, member, dead) for member in members}
    return replace(planted_evidence(planted), dictionaries=GivenDictionaries(saes))


def value(rows: list[Row], metric: str, source: int = 0, target: int = 1, **about) -> float:
    about = {"role": "estimate", "source": source, "target": target, "metric": metric} | about
    (row,) = [row for row in rows if all(getattr(row, key) == wanted for key, wanted in about.items())]
    return row.value


def test_a_rotated_copy_fires_alike_once_it_is_mapped_and_not_before():
    rows = list(firing_rows(evidence_of()))
    for source, target in [(0, 1), (1, 0), (2, 1)]:
        for name in ("orthogonal", "similarity", "affine"):
            about = {"source": source, "target": target, "map": name, "convention": "paper"}
            assert value(rows, MEAN, **about) > 0.999
            assert value(rows, SHARE, **about) == 1
        raw = {"source": source, "target": target, "map": "identity", "convention": "paper"}
        assert abs(value(rows, MEAN, **raw)) < 0.15
        assert value(rows, SHARE, **raw) < 0.1


def test_documents_permuted_leave_nothing():
    rows = list(firing_rows(evidence_of()))
    control = {"role": "control", "map": "orthogonal", "convention": "paper"}
    assert abs(value(rows, MEAN, **control)) < 0.05
    assert value(rows, SHARE, **control) == 0
    assert {row.extra.get("control") for row in rows if row.role == "control"} == {PERMUTED}
    assert {row.extra.get("control") for row in rows if row.role != "control"} == {None}


def test_what_the_position_explains_is_in_the_control():
    planted = replace(CONFIG, position=0.8)
    control = {"role": "control", "map": "orthogonal", "convention": "paper"}
    assert value(list(firing_rows(evidence_of(config=planted))), MEAN, **control) > 0.3


def test_unrelated_members_do_not_fire_alike():
    rows = list(firing_rows(evidence_of("unrelated")))
    for name in ("identity", "orthogonal", "affine"):
        assert value(rows, SHARE, map=name, convention="paper") < 0.1


def test_dead_features_are_0_in_the_papers_convention_and_absent_in_ours():
    rows = list(firing_rows(evidence_of(dead=DEAD)))
    about = {"map": "orthogonal"}
    alive = 1 - DEAD / FEATURES
    assert value(rows, MEAN, convention="live", **about) > 0.999
    assert value(rows, MEAN, convention="paper", **about) == pytest.approx(alive, abs=1e-3)
    assert value(rows, SHARE, convention="paper", **about) == pytest.approx(alive)
    for convention in ("mapped", "both"):
        assert value(rows, "live_fraction", convention=convention, **about) == pytest.approx(alive)
    own = {"source": 0, "target": 0, "role": "ceiling", "convention": "own"}
    assert value(rows, "live_fraction", **own) == pytest.approx(alive)


def test_an_sae_without_live_features_has_no_row_among_the_live():
    rows = list(firing_rows(evidence_of(dead=FEATURES)))
    assert value(rows, MEAN, map="orthogonal", convention="paper") == 0
    assert not [row for row in rows if row.convention == "live"]


def test_a_scaled_copy_needs_the_scale():
    """Through R alone a member 1.5 times as large fires more, and not in proportion, because of the bias."""
    planted = Planted("similarity", CONFIG)
    saes = {(0, 0, SITE, FAMILY, "distinct"): sae(planted, 0)}
    rows = list(firing_rows(replace(planted_evidence(planted), dictionaries=GivenDictionaries(saes))))
    through = {name: value(rows, MEAN, map=name, convention="paper") for name in ("orthogonal", "similarity")}
    assert through["similarity"] > 0.999 > through["orthogonal"]


def test_the_ceiling_of_a_planted_member_is_its_second_reading():
    about = {"source": 0, "target": 0, "target_step": 1, "role": "ceiling", "convention": "paper"}
    still, noisy = (
        value(list(firing_rows(evidence_of(config=config))), MEAN, map="orthogonal", **about)
        for config in (CONFIG, replace(CONFIG, noise=0.3))
    )
    assert still > 0.999
    assert 0.5 < noisy < 0.98


def test_the_ceiling_of_a_member_is_its_previous_checkpoint():
    """Here the member turned between step 4 and step 9, and R takes it back; at step 0 nothing was trained."""
    planted = Planted("rotated", replace(CONFIG, members=2))
    asked = []

    def source(steps):
        asked.append(list(steps))
        return planted

    saes = {
        (0, 9, SITE, FAMILY, "distinct"): sae(planted, 1)
    }  # the later of the two is the last of the source
    ends = [(0, 9), (1, 9)]
    turned = Planted("rotated", replace(CONFIG, members=2, seed=5))
    evidence = Evidence(
        "planted",
        ends,
        pairs_of(ends),
        turned,
        histories=[History(0, [0, 2, 4, 9], source), History(1, [0, 9], source)],
        dictionaries=GivenDictionaries(saes),
    )
    rows = list(firing_rows(evidence))
    about = {"source": 0, "target": 0, "source_step": 9, "target_step": 4, "role": "ceiling"}
    assert value(rows, MEAN, map="orthogonal", convention="paper", **about) > 0.999
    assert abs(value(rows, MEAN, map="identity", convention="paper", **about)) < 0.2
    assert asked == [[4, 9]]
    table(rows, STUDIES["sae_transfer"].columns)


def test_only_members_with_an_sae_are_sources():
    rows = list(firing_rows(evidence_of(members=(1,))))
    assert {(row.source, row.target) for row in rows if row.role == "estimate"} == {(1, 0), (1, 2)}
    assert {row.n_tokens for row in rows} == {CONFIG.documents * CONFIG.tokens}
    assert {row.n_seeds for row in rows if row.role == "ceiling"} == {1}


def test_many_chunks_are_read_as_one():
    rows = list(firing_rows(evidence_of(config=replace(CONFIG, documents=300))))
    assert value(rows, MEAN, map="orthogonal", convention="paper") > 0.999
    assert {row.n_tokens for row in rows if row.role == "estimate"} == {300 * CONFIG.tokens}


def test_the_rows_make_a_table_and_repeat_themselves():
    evidence = evidence_of()
    rows = list(firing_rows(evidence))
    frame = table(rows, STUDIES["sae_transfer"].columns)
    assert set(frame["sae"]) == {FAMILY}
    assert list(firing_rows(evidence_of())) == rows


def test_the_first_variant_that_a_member_has_is_read():
    """The one that fires on nothing tells them apart; one with a shared initialisation is never read."""
    planted = Planted("rotated", CONFIG)

    def rows(variants: dict[str, int], members=(0, 1)) -> list[Row]:
        saes = {
            (member, 0, SITE, FAMILY, variant): replace(sae(planted, member, dead), variant=variant)
            for member in members
            for variant, dead in variants.items()
        }
        evidence = replace(planted_evidence(planted), dictionaries=GivenDictionaries(saes))
        assert STUDIES["firing"].applies(evidence) == any(variant != "shared" for variant in variants)
        return list(firing_rows(evidence))

    about = {"map": "orthogonal", "convention": "paper"}
    for variants, read in (
        ({"online": 0, "attached": FEATURES}, "online"),
        ({"attached": 0, "shared": FEATURES}, "attached"),
        ({"distinct": 0, "online": FEATURES}, "distinct"),
    ):
        found = rows(variants)
        assert {row.extra["variant"] for row in found} == {read}
        assert {row.role for row in found} == {"estimate", "control", "ceiling"}
        assert value(found, MEAN, **about) > 0.999
        assert set(table(found, STUDIES["sae_transfer"].columns)["variant"]) == {read}
    assert rows({"shared": 0}) == []


def test_the_ceiling_of_an_online_sae_is_read():
    planted = Planted("rotated", replace(CONFIG, members=2))
    ends = [(0, 9), (1, 9)]
    online = replace(sae(planted, 1), variant="online")
    evidence = Evidence(
        "planted",
        ends,
        pairs_of(ends),
        planted,
        histories=[History(0, [0, 4, 9], lambda steps: planted)],
        dictionaries=GivenDictionaries({(0, 9, SITE, FAMILY, "online"): online}),
    )
    about = {"source": 0, "target": 0, "target_step": 4, "role": "ceiling", "convention": "paper"}
    assert value(list(firing_rows(evidence)), MEAN, map="orthogonal", **about) > 0.999


def test_an_sae_of_another_width_is_refused():
    other = Planted("rotated", replace(CONFIG, d=10))
    saes = {(0, 0, SITE, FAMILY, "distinct"): sae(other, 0)}
    evidence = replace(evidence_of(), dictionaries=GivenDictionaries(saes))
    with pytest.raises(ValueError, match=r"standard_x8 reads \[n, 10\], not activations \(1024, 12\)"):
        list(firing_rows(evidence))


def test_it_applies_where_there_is_an_sae():
    assert STUDIES["firing"].applies(evidence_of(members=(2,)))
    assert not STUDIES["firing"].applies(evidence_of(members=()))
    planted = Planted("rotated", CONFIG)
    elsewhere = GivenDictionaries({(0, 7, SITE, FAMILY, "distinct"): sae(planted, 0)})
    without = replace(evidence_of(), dictionaries=elsewhere)
    assert not STUDIES["firing"].applies(without)
    _, refused = study_tables(without, ["firing"])
    assert "stage=sae" in dict(refused)["study firing"]
