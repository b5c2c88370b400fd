"""SAEs of one member's checkpoints on one another: the members of a plant as the checkpoints of one."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from one_sided import CONFIG, N, OneSided, given

from polymorph.alignment.accumulator import MomentAccumulator
from polymorph.alignment.controls import covariance_only
from polymorph.alignment.moments import explained_variance
from polymorph.alignment.pairings import chunk_generator
from polymorph.evidence.dictionaries import DRAWS
from polymorph.evidence.evidence import Evidence, History
from polymorph.evidence.pairs import pairs_of
from polymorph.evidence.planted import SITE
from polymorph.evidence.rows import Row, table
from polymorph.models.activations import Activations, Split
from polymorph.saes.trained import GivenDictionaries, TrainedSAE
from polymorph.studies.checkpoint_transfer.rows import study_rows as checkpoint_transfer_rows
from polymorph.studies.registry import STUDIES
from polymorph.studies.tables import study_tables
from polymorph.studies.trajectory.rows import CHECKPOINTS

STEPS = [10, 20, 30]
SEED = 7
Key = tuple[int, int, str, str, str]


@dataclass(frozen=True)
class Checkpoints:
    """One member at some steps: step 10 (k + 1) is the plant's member k, modulo their number."""

    steps: Sequence[int]
    plant: OneSided
    sites: Sequence[str] = (SITE,)

    @property
    def documents(self) -> Mapping[Split, int]:
        return self.plant.documents

    def chunks(self, split: Split) -> Iterator[Activations]:
        members = [place(step) for step in self.steps]
        for chunk in self.plant.chunks(split):
            yield replace(chunk, values={SITE: chunk.values[SITE][members]})


def place(step: int) -> int:
    return (step // 10 - 1) % CONFIG.members


def evidence(saes: Mapping[Key, TrainedSAE], steps: Sequence[int] = STEPS, kind: str = "rotated") -> Evidence:
    plant = OneSided(kind)
    histories = [
        History(SEED, steps, lambda some: Checkpoints(some, plant)),
        History(8, [10], lambda _: plant),
    ]
    ends = [(SEED, steps[-1]), (8, 10)]
    return Evidence(
        "planted", ends, pairs_of(ends), plant, histories=histories, dictionaries=GivenDictionaries(saes)
    )


def saes(steps: Sequence[int] = STEPS, kind: str = "rotated", **about: Any) -> dict[Key, TrainedSAE]:
    made = {step: OneSided(kind).sae(place(step), **about) for step in steps}
    return {(SEED, step, SITE, sae.family, sae.variant): sae for step, sae in made.items()}


def find(rows: list[Row], source: int, target: int, **about: Any) -> Row:
    wanted = {"source_step": source, "target_step": target, "convention": "centred"}
    wanted |= {"metric": "explained_variance"} | about
    control = wanted.pop("control", None)
    chosen = [row for row in rows if row.extra.get("control") == control]
    (row,) = [row for row in chosen if all(getattr(row, key) == value for key, value in wanted.items())]
    return row


@pytest.fixture(scope="module")
def rotated() -> list[Row]:
    return list(checkpoint_transfer_rows(evidence(saes())))


def test_a_checkpoint_that_turned_is_explained_through_the_rotation_alone(rotated):
    for s in STEPS:
        own = find(rotated, s, s, map=None)
        assert (own.role, own.source, own.target, own.n_seeds) == ("ceiling", SEED, SEED, 1)
        assert own.value == pytest.approx(1, abs=1e-6)
        for t in {*STEPS} - {s}:
            turned = find(rotated, s, t, map="orthogonal")
            assert (turned.role, turned.source, turned.target) == ("estimate", SEED, SEED)
            assert turned.value == pytest.approx(1, abs=1e-6)
            assert find(rotated, s, t, map="affine").value == pytest.approx(1, abs=1e-4)
            assert find(rotated, s, t, map="identity").high < 0.9


def test_an_affine_change_needs_the_affine_map():
    rows = list(checkpoint_transfer_rows(evidence(saes(kind="affine"), kind="affine")))
    orthogonal, affine = (find(rows, 10, 30, map=name).value for name in ("orthogonal", "affine"))
    assert affine == pytest.approx(1, abs=1e-4)
    assert orthogonal < affine - 0.02


def test_the_source_step_is_that_of_the_sae(rotated):
    """Checked as it is, where the two directions differ."""
    plant = OneSided()
    x = plant.tokens("eval")
    with torch.no_grad():
        wanted = explained_variance(plant.sae(0).sae(x[2].float()).double(), x[2])
        other = explained_variance(plant.sae(2).sae(x[0].float()).double(), x[0])
    assert find(rotated, 10, 30, map="identity").value == pytest.approx(wanted, abs=1e-6)
    assert abs(wanted - other) > 1e-3


def test_what_is_reported_of_every_two_checkpoints(rotated):
    counted = Counter((row.metric, row.convention, row.extra.get("control")) for row in rotated)
    beside = len(STEPS) * (len(STEPS) - 1)  # the diagonal
    each = len(STEPS) + beside * 3  # maps
    scores = [("explained_variance", "centred"), ("explained_variance", "paper")]
    kinds = [(*score, control) for score in scores for control in (None, "predict_mean")]
    unpaired = [(*score, "covariance_only") for score in (*scores, ("l0", None))]
    assert counted == dict.fromkeys([*kinds, ("l0", None, None)], each) | dict.fromkeys(unpaired, beside)
    constant = [row for row in rotated if row.extra.get("control") == "predict_mean"]
    assert {row.value for row in constant if row.convention == "centred"} == {0}
    assert all(row.low <= row.value <= row.high for row in rotated)
    assert {(row.n_documents, row.n_tokens) for row in rotated} == {(CONFIG.documents, N)}
    assert len(table(rotated, STUDIES["sae_transfer"].columns)) == len(rotated)


def test_without_the_pairing_a_checkpoint_is_explained_less(rotated):
    """Here whole: the score is the mean over maps of random signs from the target to the source and back."""
    plant = OneSided()
    for s, t in ((10, 30), (30, 10)):
        unpaired = find(rotated, s, t, control="covariance_only")
        assert (unpaired.role, unpaired.map, unpaired.n_seeds) == ("control", "orthogonal", 1)
        assert unpaired.high < 0.9 < find(rotated, s, t, map="orthogonal").value
        fit = torch.stack([plant.tokens("fit")[place(step)] for step in (t, s)])
        document = torch.arange(CONFIG.documents).repeat_interleave(CONFIG.tokens)
        accumulator = MomentAccumulator([(0, 1)], 16)
        accumulator.update(fit, document)
        moments, x = accumulator.result().total()[0], plant.tokens("eval")[place(t)]
        scores = []
        for draw in range(DRAWS):
            R = covariance_only(moments, chunk_generator(draw, SEED, s, SEED, t))
            with torch.no_grad():
                x_hat = R.inv(plant.sae(place(s)).sae(R(x).float()).double())
            scores.append(explained_variance(x_hat, x))
        assert unpaired.value == pytest.approx(sum(scores) / DRAWS, abs=1e-6)
        assert max(scores) - min(scores) > 1e-3


@dataclass(frozen=True)
class Listening(Checkpoints):
    """Members with the same activations at all sites; it notes which were asked for."""

    asked: list[tuple[str, ...]] = field(default_factory=list)

    def chunks(self, split: Split) -> Iterator[Activations]:
        self.asked.append(tuple(self.sites))
        for chunk in super().chunks(split):
            yield replace(chunk, values=dict.fromkeys(self.sites, chunk.values[SITE]))


def test_only_the_site_in_hand_is_read():
    sites = (SITE, "with other steps", "without SAEs")
    listening = Listening(STEPS, OneSided(), sites)
    all_of = evidence(
        saes() | {(SEED, t, sites[1], *k): sae for (_, t, _, *k), sae in saes([20, 30]).items()}
    )
    whole = replace(
        all_of,
        source=replace(all_of.source, sites=sites),
        histories=[History(SEED, STEPS, lambda some: replace(listening, steps=some))],
    )
    rows = list(checkpoint_transfer_rows(whole))
    assert set(listening.asked) == {(SITE,), (sites[1],)}
    alone = list(checkpoint_transfer_rows(evidence(saes())))
    assert [row for row in rows if row.site == SITE] == alone
    assert {row.source_step for row in rows if row.site == sites[1]} == {20, 30}


def test_it_needs_saes_at_two_checkpoints_of_one_member():
    assert STUDIES["checkpoint_transfer"].applies(evidence(saes()))
    for lacking in (
        {},
        saes([10]),
        saes([10]) | saes([20], family="other"),
        saes([10]) | saes([20], variant="online"),
    ):
        assert not STUDIES["checkpoint_transfer"].applies(evidence(lacking))
        assert list(checkpoint_transfer_rows(evidence(lacking))) == []
    _, refused = study_tables(evidence({}), ["checkpoint_transfer"])
    assert "stage=sae" in refused[0][1]
    unread = [10, 40]  # a step that the history does not have
    assert not STUDIES["checkpoint_transfer"].applies(evidence(saes(unread)))


def test_the_first_variant_that_is_there_at_two_checkpoints_is_used():
    """Online SAEs go through the checkpoints; one trained for a single checkpoint does not hide them."""
    online = saes(variant="online")
    rows = list(checkpoint_transfer_rows(evidence(online | saes([30]))))
    assert {row.extra["variant"] for row in rows} == {"online"}
    rows = list(checkpoint_transfer_rows(evidence(online | saes([10, 30]))))
    assert {(row.extra["variant"], row.source_step) for row in rows} == {("distinct", 10), ("distinct", 30)}


def test_families_with_other_checkpoints_stand_beside_each_other():
    both = saes([10, 20]) | saes([20, 30], family="other")
    rows = list(checkpoint_transfer_rows(evidence(both)))
    found = {(row.extra["sae"], row.source_step, row.target_step) for row in rows}
    wanted = {("standard", s, t) for s in (10, 20) for t in (10, 20)}
    assert found == wanted | {("other", s, t) for s in (20, 30) for t in (20, 30)}
    assert find([r for r in rows if r.extra["sae"] == "other"], 20, 30, map="orthogonal").value > 0.999


def test_many_checkpoints_are_spread():
    steps = list(range(10, 130, 10))
    rows = list(checkpoint_transfer_rows(evidence(saes(steps), steps)))
    used = sorted({row.source_step for row in rows})
    assert len(used) == CHECKPOINTS
    assert (used[0], used[-1]) == (10, 120)


def test_an_sae_of_another_width_is_refused():
    wide = {(SEED, 20, SITE, "standard", "distinct"): given(torch.eye(9), torch.eye(9), torch.zeros(9))}
    with pytest.raises(ValueError, match=rf"seed {SEED} at step 20, {SITE}, takes 9 dimensions.* have 16"):
        list(checkpoint_transfer_rows(evidence(saes() | wide)))
