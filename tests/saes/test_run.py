"""SAEs of a cohort are trained and published, each once, whole or not at all, and each as if it were alone."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cohorts import SMALL, UNWATCHED, copy_of, memory_folder, snapshot, trained
from lightning.pytorch.loggers import Logger
from sae_lens import SAE
from torch import Tensor

from polymorph.errors import RequestError
from polymorph.pipeline.comparison import Comparison
from polymorph.saes import run as sae_run
from polymorph.saes.build import sae_seed
from polymorph.saes.config import SAEConfig, SAEOptimizerConfig
from polymorph.saes.inputs import Stream
from polymorph.saes.places import End, Place, places_of
from polymorph.saes.run import SAETraining
from polymorph.saes.stored import read_trained, sae_name
from polymorph.store import Cohort

sys.path.append(str(Path(__file__).resolve().parent.parent / "store"))

from store_faults import KILLED, at_call, calls_of, drafts, in_child, kill_amid, kill_before

CPU = torch.device("cpu")
FEW = ("checkpoints.powers_until=0", "checkpoints.every=15", "seed=[0,1]", UNWATCHED)
LAST = 30
# One thread: the tests fork, and a pool of threads does not survive that.
TINY: dict[str, Any] = {
    **{"family": "tiny", "expansion": 2, "steps": 5, "batch_size": 64},
    **{"log_every": 2, "threads": 1},
}
VARIANTS = ["distinct", "again", "shared", "unrelated"]
assert "trainer.max_steps=30" in SMALL


@pytest.fixture(scope="module")
def models() -> Iterator[Cohort]:
    """Two members with checkpoints at 0, 15 and 30, without SAEs."""
    with memory_folder() as folder:
        yield trained(folder, *FEW)


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def cohort(models: Cohort, root: Path) -> Cohort:
    return copy_of(models, root)


def training_of(cohort: Cohort, config: SAEConfig, **own: Any) -> tuple[SAETraining, list[Place], list[str]]:
    """The training, what it is to train, and what it says."""
    comparison = Comparison.of(cohort, CPU)
    said: list[str] = []
    training = SAETraining(
        cohort,
        config,
        comparison.sites,
        comparison.model.d_model,
        partial(comparison.stream, tokens=config.batch_size, seed=config.data_seed),
        CPU,
        say=said.append,
    )
    return replace(training, **own), places_of(cohort, config, comparison.sites), said


def train(cohort: Cohort, own: Mapping[str, Any] | None = None, **keys: Any) -> tuple[int, list[str]]:
    """How many were published, and what was said."""
    training, places, said = training_of(cohort, SAEConfig(**{**TINY, **keys}), **(own or {}))
    return training.run(places), said


def digests(cohort: Cohort) -> dict[tuple[int, int, str, str], str]:
    """Of every SAE, each verified by reading it."""
    return {
        (member.seed, *place): member.read_sae(*place).manifest.digest
        for member in cohort.members()
        for place in member.saes()
    }


@pytest.fixture(scope="module")
def whole(models: Cohort) -> Iterator[Cohort]:
    """All members, sites and variants; not to be changed."""
    with memory_folder() as folder:
        cohort = copy_of(models, folder)
        count, _ = train(cohort, variants=VARIANTS)
        assert count == 2 * 3 * 4
        yield cohort


@pytest.fixture
def mine(whole: Cohort, root: Path) -> Cohort:
    return copy_of(whole, root)


def test_every_member_site_and_variant_is_published(whole: Cohort) -> None:
    sites = Comparison.of(whole, CPU).sites
    names = [sae_name("tiny", variant) for variant in VARIANTS]  # type: ignore[arg-type]
    assert set(digests(whole)) == {(s, LAST, site, name) for s in (0, 1) for site in sites for name in names}


def test_saelens_opens_them(whole: Cohort) -> None:
    sites = Comparison.of(whole, CPU).sites
    seeds: dict[str, list[int]] = {}
    for seed, step, site, name in digests(whole):
        member = whole.member(seed)
        sae = SAE.load_from_disk(member.sae_path(step, site, name))
        notes = sae.cfg.metadata
        assert (sae.cfg.d_in, sae.cfg.d_sae, sae.cfg.architecture()) == (16, 32, "standard")
        assert (notes.hook_name, notes.model_name) == (site, f"small/seed-{seed:04d}")
        assert notes.polymorph_step == step
        assert 0 < notes.l0 <= 32
        assert 0 <= notes.num_dead_features <= 32
        variant = name.removeprefix("tiny").removeprefix("-") or "distinct"
        trained_sae = read_trained(member, step, site, "tiny", variant)  # type: ignore[arg-type]
        assert trained_sae.seed == notes.sae_seed == sae_seed(0, seed, sites.index(site), trained_sae.variant)
        assert trained_sae.facts["checkpoint"] == member.read_step(step).digest
        for key, value in sae.state_dict().items():
            assert torch.equal(value, trained_sae.sae.state_dict()[key])
        seeds.setdefault(variant, []).append(notes.sae_seed)
    assert len(set(seeds["distinct"] + seeds["again"])) == 2 * 2 * 3
    assert len(set(seeds["shared"] + seeds["unrelated"])) == 1


def test_every_sae_is_another(whole: Cohort) -> None:
    assert len(set(digests(whole).values())) == 2 * 3 * 4


def test_training_is_towards_the_activations(cohort: Cohort) -> None:
    """More steps explain more, on documents that were not trained on."""
    found = []
    for steps in (1, 40):
        optimizer = SAEOptimizerConfig(lr=1e-2)
        train(cohort, family=f"f{steps}", steps=steps, members=[0], batch_size=128, optimizer=optimizer)
        site = "blocks.0.hook_resid_post"
        x = Comparison.of(cohort, CPU).stream([(0, LAST)], [site], 2000, 9).batch(10**6)[site][0]
        sae = read_trained(cohort.member(0), LAST, site, f"f{steps}", "distinct").sae
        found.append(float((sae(x) - x).square().sum() / (x - x.mean(0)).square().sum()))
    assert found[1] < 0.9 * found[0]


@pytest.mark.parametrize(
    "keys",
    [
        {"members": [1], "sites": ["blocks.0.hook_resid_mid"], "variants": ["unrelated", "again"]},
        {"members": [0], "sites": ["blocks.0.hook_resid_post"], "variants": ["distinct"]},
        {"at": [LAST], "variants": ["shared"]},
        {"threads": 2, "variants": ["distinct"]},
    ],
)
def test_what_else_is_trained_beside_it_changes_no_bit(
    cohort: Cohort, whole: Cohort, keys: dict[str, Any]
) -> None:
    count, _ = train(cohort, **keys)
    found = digests(cohort)
    assert len(found) == count > 0
    assert found.items() <= digests(whole).items()


def test_other_seeds_and_other_data_make_other_saes(cohort: Cohort, whole: Cohort) -> None:
    one = {"sites": ["blocks.0.hook_resid_mid"], "members": [0]}
    for keys in ({"seed": 1}, {"data_seed": 1}):
        train(cohort, family=f"other{len(digests(cohort))}", **keys, **one)
    assert len({*digests(cohort).values(), *digests(whole).values()}) == 2 + 2 * 3 * 4


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("something was done")


def test_twice_does_no_work(mine: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(mine.folder)
    monkeypatch.setattr(sae_run, "trainer_of", refuse)
    assert train(mine, {"stream": refuse}, variants=VARIANTS) == (0, ["24 of 24 SAEs of tiny are there"])
    assert snapshot(mine.folder) == before


def test_the_missing_ones_are_trained(mine: Cohort, whole: Cohort) -> None:
    for place in list(digests(mine))[::5]:
        shutil.rmtree(mine.member(place[0]).sae_path(*place[1:]))
    count, said = train(mine, variants=VARIANTS)
    assert count == 5
    assert said[0] == "19 of 24 SAEs of tiny are there"
    assert digests(mine) == digests(whole)


@pytest.mark.parametrize("damage", ["altered", "cut", "missing", "emptied"])
def test_a_damaged_one_is_trained_again(mine: Cohort, whole: Cohort, damage: str) -> None:
    folder = mine.member(1).sae_path(LAST, "blocks.0.hook_resid_mid", "tiny")
    path = folder / "sae_weights.safetensors"
    data = path.read_bytes()
    if damage == "altered":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        path.write_bytes(data[:-100])
    elif damage == "missing":
        path.unlink()
    else:
        for path in folder.iterdir():
            path.unlink()
    training, places, said = training_of(mine, SAEConfig(**TINY))
    training.check(places)
    assert said == []
    count, said = train(mine)
    assert count == 1
    assert said[0].startswith("trained again: ")
    assert digests(mine) == digests(whole)


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"steps": 6}, "training.steps: 5 there, 6 here"),
    "a coefficient": (
        {"options": {"l1_coefficient": 0.5}},
        "training.options.l1_coefficient: nothing there, 0.5",
    ),
    "a seed": ({"seed": 1}, "training.seed: 0 there, 1 here"),
    "an architecture": ({"architecture": "gated"}, "training.architecture: 'standard' there, 'gated' here"),
}


@pytest.mark.parametrize("what", OTHER)
def test_one_with_other_options_is_refused(mine: Cohort, what: str) -> None:
    keys, message = OTHER[what]
    before = snapshot(mine.folder)
    training, places, _ = training_of(mine, SAEConfig(**{**TINY, **keys}))
    for action in (training.check, training.run):
        with pytest.raises(
            RequestError, match=f"sae.family=tiny.*other options: {message}.*another sae.family"
        ):
            action(places)
    assert snapshot(mine.folder) == before


def test_one_of_before_there_was_a_precision_is_of_float32(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SAEConfig.deciding

    def before(config: SAEConfig) -> dict[str, Any]:
        return {key: value for key, value in original(config).items() if key != "precision"}

    with monkeypatch.context() as patch:
        patch.setattr(SAEConfig, "deciding", before)
        train(cohort, members=[0], precision="float32")
    assert train(cohort, members=[0], precision="float32")[0] == 0
    with pytest.raises(RequestError, match=r"training.precision: 'float32' there, 'bfloat16' here"):
        train(cohort, members=[0], precision="bfloat16")


def test_one_of_another_checkpoint_is_refused(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SAETraining._facts
    with monkeypatch.context() as patch:
        patch.setattr(SAETraining, "_facts", lambda *own: {**original(*own), "checkpoint": "of before"})
        train(cohort, members=[0])
    before = snapshot(cohort.folder)
    with pytest.raises(RequestError, match="checkpoint: 'of before' there"):
        train(cohort, members=[0])
    assert snapshot(cohort.folder) == before


def test_at_all_every_checkpoint_has_its_own(cohort: Cohort, whole: Cohort) -> None:
    count, said = train(cohort, at="all")
    assert count == 2 * 3 * 3
    assert [line for line in said if line.startswith("training")] == [
        f"training 6 SAEs of tiny at step {step}, as one stack" for step in (0, 15, 30)
    ]
    found = digests(cohort)
    assert {place: own for place, own in found.items() if place[1] == LAST}.items() <= digests(whole).items()
    assert len(set(found.values())) == 18


def test_last_is_the_last_of_each(cohort: Cohort) -> None:
    shutil.rmtree(cohort.member(1).folder / "steps" / f"step-{LAST:08d}")
    count, said = train(cohort)
    assert count == 6
    assert said == ["training 6 SAEs of tiny at step 15, 30, as one stack"]
    assert {place[:2] for place in digests(cohort)} == {(0, 30), (1, 15)}
    alone = {place: own for place, own in digests(cohort).items() if place[0] == 1}
    shutil.rmtree(cohort.member(1).folder / "saes")
    train(cohort, members=[1], at=[15])
    assert {place: own for place, own in digests(cohort).items() if place[0] == 1} == alone


def after(steps: int) -> Callable[[], bool]:
    """Asked at every step, it says yes from the one number `steps` on."""
    left = iter(range(10**6))
    return lambda: next(left) >= steps


def test_stopped_at_the_last_step_all_is_published(cohort: Cohort) -> None:
    count, said = train(cohort, {"stopped": after(5)})
    assert count == 6
    assert len(said) == 1


def test_stopped_between_checkpoints_the_earlier_ones_are_kept(cohort: Cohort) -> None:
    count, said = train(cohort, {"stopped": after(1 + 5 + 1 + 2)}, at="all")
    assert count == 6
    assert said[-1].startswith("stopped after")
    assert {place[1] for place in digests(cohort)} == {0}
    assert train(cohort, at="all")[0] == 12


def test_killed_while_publishing_leaves_each_whole_or_not_there(
    root: Path, cohort: Cohort, whole: Cohort
) -> None:
    expected = {place: own for place, own in digests(whole).items() if place[3] == "tiny"}
    training, places, _ = training_of(copy_of(cohort, root / "counted"), SAEConfig(**TINY))
    calls = calls_of(lambda: training.run(places))
    first = len(calls) - calls[::-1].index(
        "open_append"
    )  # the last row of the log; SAEs are published after it
    seen, left = set(), 0
    for number, index in enumerate(range(first, len(calls), max(1, (len(calls) - first) // 5))):
        own = copy_of(cohort, root / str(number))

        def act(
            own: Cohort = own, index: int = index, fault: Any = (kill_before, kill_amid)[number % 2]
        ) -> None:
            training, places, _ = training_of(own, SAEConfig(**TINY))
            with at_call(index, fault):
                training.run(places)

        assert in_child(act) == KILLED
        there = digests(own)
        assert there.items() <= expected.items()
        seen.add(len(there))
        left += len(drafts(own.folder))
        assert train(own)[0] == 6 - len(there)
        assert digests(own) == expected
        assert drafts(own.folder) == []
    assert len(seen) > 2
    assert left > 0


class Broken:
    """A stream that is not finite for the member at an index, from a step on."""

    def __init__(self, inner: Stream, member: int) -> None:
        self.inner, self.member = inner, member

    def batch(self, step: int) -> dict[str, Tensor]:
        values = {site: x.clone() for site, x in self.inner.batch(step).items()}
        if step >= 2:
            values["blocks.0.hook_resid_mid"][self.member] = torch.nan
        return values


def test_one_that_is_not_finite_is_not_kept_and_the_others_are(cohort: Cohort, whole: Cohort) -> None:
    training, places, said = training_of(cohort, SAEConfig(**TINY))

    def stream(ends: Sequence[End], sites: Sequence[str]) -> Stream:
        return Broken(training.stream(ends, sites), 0)

    assert replace(training, stream=stream).run(places) == 5
    assert said[-1].startswith("seed 0 at blocks.0.hook_resid_mid: not kept: ")
    assert "not finite" in said[-1]
    found = digests(cohort)
    assert len(found) == 5
    assert (0, LAST, "blocks.0.hook_resid_mid", "tiny") not in found
    assert found.items() <= digests(whole).items()


@pytest.mark.parametrize(
    ("architecture", "how"),
    [("standard", "as one stack"), ("jumprelu", "one after another in each step")],
)
def test_it_is_said_how_they_are_trained(cohort: Cohort, architecture: str, how: str) -> None:
    count, said = train(cohort, architecture=architecture, family="other", steps=2)
    assert count == 6
    assert said == [f"training 6 SAEs of other at step {LAST}, {how}"]


class Kept(Logger):
    name = version = "kept"

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...


def test_every_member_is_logged_to_its_own(cohort: Cohort) -> None:
    loggers = {0: Kept(), 1: Kept()}
    train(cohort, {"loggers": loggers}, variants=["distinct", "again"], members=[0, 1])
    sites = Comparison.of(cohort, CPU).sites
    keys = {f"sae/{name}/{site}/" for name in ("tiny", "tiny-again") for site in sites}
    for logger in loggers.values():
        assert [step for step, _ in logger.rows] == [2, 4, 5]
        for _, row in logger.rows:
            assert {key.rpartition("/")[0] + "/" for key in row} == keys
            found = {key.rpartition("/")[2] for key in row}
            assert found >= {"loss", "mse_loss", "l1_loss", "l0", "live_fraction", "explained_variance"}
            assert all(torch.tensor(value).isfinite() for value in row.values())
    assert loggers[0].rows[-1] != loggers[1].rows[-1]


def test_logging_changes_no_bit(cohort: Cohort, whole: Cohort) -> None:
    train(cohort, {"loggers": {0: Kept()}}, log_every=1)
    assert digests(cohort).items() <= digests(whole).items()


def test_nothing_global_is_changed(cohort: Cohort, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither random states nor the members; and nothing is written elsewhere."""
    (root / "empty").mkdir()
    monkeypatch.chdir(root / "empty")
    before = snapshot(cohort.folder, "rows.jsonl")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    train(cohort, variants=VARIANTS, members=[0])
    assert torch.equal(torch.get_rng_state(), state)
    left = {
        name: data for name, data in snapshot(cohort.folder, "rows.jsonl").items() if "/saes/" not in name
    }
    assert left == before
    assert not list((root / "empty").iterdir())


def test_memory_that_is_not_there_is_refused(cohort: Cohort) -> None:
    training, places, _ = training_of(cohort, SAEConfig(**TINY, at="all"))
    with pytest.raises(
        RequestError, match=r"6 SAEs of 16 → 32 features need about .* GiB, and .*sae.members=\["
    ):
        training.check_memory(places, 1000)
    training.check_memory(places, 2**30)


def test_what_is_there_needs_no_memory(mine: Cohort) -> None:
    training, places, _ = training_of(mine, SAEConfig(**TINY))
    needed = 4 * 4 * 6 * 2 * 16 * 32
    with pytest.raises(RequestError):
        replace(training, config=SAEConfig(**{**TINY, "family": "another"})).check_memory(places, needed)
    training.check_memory(places, needed)
