"""SAEs that accompany the training: kept trained at every checkpoint, compared live, and without effect on it."""

import os
import shutil
import signal
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from cohorts import after_step, all_weights, equal, memory_folder, rows_of_kind, status_of, trained

from polymorph.errors import RequestError
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.online_saes import OnlineSAEs
from polymorph.saes.config import SAEConfig
from polymorph.saes.stored import StoredDictionaries
from polymorph.store import Cohort

SITES = ("blocks.0.hook_resid_mid", "blocks.0.hook_resid_post")
FEW = ("checkpoints.powers_until=0", "checkpoints.every=10", "trainer.max_steps=20")
SMALL = (
    *("sae=quick", "sae.batch_size=128", "sae.online_steps=4", "sae.steps=6", "sae.expansion=2"),
    "sae.threads=1",
    f"sae.sites=[{','.join(SITES)}]",
)
STACK = ("seed=[0,1]", *FEW, *SMALL)
STEPS = [0, 10, 20]


@pytest.fixture(scope="module")
def online() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, *STACK, "callbacks.cross_seed.sae=online")


def places(cohort: Cohort, seed: int) -> list[tuple[int, str, str]]:
    return cohort.member(seed).saes()


def saes_of(cohort: Cohort) -> OnlineSAEs:
    comparison = Comparison.of(cohort, torch.device("cpu"))
    config = SAEConfig(
        family="quick",
        expansion=2,
        options={"decoder_init_norm": 0.1, "l1_warm_up_steps": 0, "normalize_activations": "none"},
        l1_per_dimension=1e-3,
        batch_size=128,
        online_steps=4,
        sites=list(SITES),
    )
    return OnlineSAEs(comparison, config)


def test_every_checkpoint_has_the_saes_of_every_site(online):
    for seed in (0, 1):
        wanted = [(step, site, "quick-online") for step in STEPS for site in SITES]
        assert places(online, seed) == sorted(wanted)
    assert not [row for seed in (0, 1) for row in rows_of_kind(online, seed, "comparison failure")]


def test_the_training_is_the_same_to_the_last_bit(online):
    with memory_folder() as folder:
        without = trained(folder, *STACK, "callbacks.cross_seed.sae=none")
        assert places(without, 0) == []
        assert all(equal(all_weights(without, seed), all_weights(online, seed)) for seed in (0, 1))


def test_an_sae_goes_on_from_the_one_before(online):
    """It is nearer to it than to a fresh one, and it has learnt something."""
    there = StoredDictionaries(online)
    for site in SITES:
        decoders = [there.read(0, step, site, "quick", "online").sae.W_dec for step in STEPS]
        moved = [float((b - a).norm()) for a, b in pairwise(decoders)]
        fresh = float((there.read(1, 0, site, "quick", "online").sae.W_dec - decoders[0]).norm())
        assert 0 < max(moved) < fresh


def test_the_rows_are_kept_and_the_same_when_they_are_asked_for_later(online):
    saes = saes_of(online)
    pairs = [pair for pair in saes.comparison.pairs_at(10) if pair.role == "estimate"]
    kept = saes.rows(pairs)
    assert {row.site for row in kept} == set(SITES)
    what = {(row.map, row.role, row.extra.get("control")) for row in kept if row.convention == "centred"}
    assert {(None, "ceiling", None), ("identity", "estimate", None), ("orthogonal", "estimate", None)} <= what
    assert ("orthogonal", "control", "covariance_only") in what
    shutil.rmtree(online.pairs.folder / "seed-0000--seed-0001--sae_transfer")
    again = saes.rows(pairs)
    assert [row.to_dict() | {"value": 0, "low": 0, "high": 0} for row in kept] == [
        row.to_dict() | {"value": 0, "low": 0, "high": 0} for row in again
    ]
    assert [row.value for row in kept] == pytest.approx([row.value for row in again], rel=1e-9)


def test_a_pair_without_saes_has_no_rows(online):
    saes = saes_of(online)
    saes.config.family = "elsewhere"
    assert saes.rows(saes.comparison.pairs_at(10)) == []


def test_a_resumed_member_goes_on_with_its_saes(online):
    with memory_folder() as folder:
        with after_step(15, lambda module: os.kill(os.getpid(), signal.SIGTERM)):
            stopped = trained(folder, *STACK, "callbacks.cross_seed.sae=online")
        assert status_of(stopped, 0).state == "preempted"
        assert {step for step, *_ in places(stopped, 0)} == {0, 10}
        resumed = trained(folder, *STACK, "callbacks.cross_seed.sae=online")
        for seed in (0, 1):
            digests = [
                {
                    place: cohort.member(seed).read_sae(*place).manifest.digest
                    for place in places(cohort, seed)
                }
                for cohort in (resumed, online)
            ]
            assert digests[0] == digests[1]


def test_final_trains_where_a_member_ends_and_nowhere_else():
    with memory_folder() as folder:
        cohort = trained(folder, *STACK, "callbacks.cross_seed.sae=final")
        assert places(cohort, 1) == [(20, site, "quick") for site in sorted(SITES)]


def test_saes_that_cannot_go_on_are_refused_before_anything_is_trained():
    with memory_folder() as folder:
        with pytest.raises(RequestError, match=r"jumprelu .*one of standard, topk, gated"):
            trained(folder, "seed=0", "sae=jumprelu_x8", "callbacks.cross_seed.sae=online")
        with pytest.raises(RequestError, match=r"sae\.sites=blocks\.1\.hook_resid_mid"):
            trained(
                folder, "seed=0", "sae.sites=[blocks.1.hook_resid_mid]", "callbacks.cross_seed.sae=online"
            )
        assert not list(folder.iterdir())
