"""A training of SAEs that was stopped or killed goes on from its state, and ends in the bytes of one that was not."""

import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cohorts import copy_of, memory_folder
from test_run import FEW, TINY, after, digests, train, training_of

sys.path.append(str(Path(__file__).resolve().parent.parent / "store"))

from cohorts import trained
from store_faults import in_child

from polymorph.errors import RequestError
from polymorph.saes.config import SAEConfig
from polymorph.saes.module import SAEModule
from polymorph.store import Cohort
from polymorph.store.unfinished import Unfinished

STEPS = 12
OWN: dict[str, dict[str, Any]] = {
    "standard": {"options": {"normalize_activations": "expected_average_only_in", "l1_warm_up_steps": 8}},
    "gated": {"architecture": "gated", "variants": ["distinct", "unrelated"]},
    "topk": {"architecture": "topk", "options": {"k": 4}, "dead_feature_window": 3},
    "whitened": {"options": {"normalize_activations": "covariance_whitening"}},
    "another norm": {"options": {"lp_norm": 2.0}},
    "jumprelu": {"architecture": "jumprelu", "options": {"normalize_activations": "covariance_whitening"}},
    "batchtopk": {"architecture": "batchtopk", "options": {"k": 4}, "dead_feature_window": 3},
}


@pytest.fixture(scope="module")
def models() -> Iterator[Cohort]:
    with memory_folder() as folder:
        yield trained(folder, *FEW)


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


def own(name: str, **more: Any) -> dict[str, Any]:
    keys = {"steps": STEPS, "feature_sampling_window": 5, "n_batches_for_norm_estimate": 2, "members": [0]}
    return {**keys, **OWN[name], **more}


def states(cohort: Cohort) -> list[Unfinished]:
    return [cohort.unfinished(name) for name in cohort.unfinished_names()]


def stopped(models: Cohort, folder: Path, last: int, **keys: Any) -> Cohort:
    cohort = copy_of(models, folder)
    count, said = train(cohort, {"stopped": after(last)}, **keys)
    assert count == 0
    assert said[-1] == f"stopped after {last} of {STEPS} steps; the same request goes on from there"
    assert not digests(cohort)
    return cohort


@pytest.mark.parametrize("name", OWN)
def test_a_stopped_training_ends_in_the_bytes_of_one_that_was_not(
    models: Cohort, root: Path, name: str
) -> None:
    whole = copy_of(models, root / "whole")
    train(whole, **own(name))
    cohort = stopped(models, root / "stopped", 7, **own(name))
    assert [state.newest()[0].step for state in states(cohort)] == [7]  # type: ignore[union-attr]
    _, said = train(cohort, **own(name))
    assert said[0].endswith(": goes on after step 7")
    assert digests(cohort) == digests(whole)
    assert states(cohort) == []


@pytest.mark.parametrize("name", ["standard", "topk"])
def test_a_killed_one_does_too(
    models: Cohort, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """At any step, and again while it goes on."""
    keys = own(name, state_every=2)
    whole = copy_of(models, root / "whole")
    train(whole, **keys)
    cohort = copy_of(models, root / "killed")
    chosen = random.Random(name)
    original = SAEModule.training_step

    def run(last: int) -> None:
        def step(module: SAEModule, *given: Any) -> None:
            if module.step == last:
                os.kill(os.getpid(), signal.SIGKILL)
            original(module, *given)

        monkeypatch.setattr(SAEModule, "training_step", step)
        train(cohort, **keys)

    for last in sorted(chosen.sample(range(1, STEPS), 3)):
        assert in_child(lambda last=last: run(last)) == -signal.SIGKILL  # type: ignore[misc]
        kept = [state.newest()[0] for state in states(cohort)]
        assert [state.step for state in kept if state] == ([last // 2 * 2] if last > 1 else [])
    train(cohort, **keys)
    assert digests(cohort) == digests(whole)


def test_some_of_the_saes_go_on_as_well(models: Cohort, root: Path) -> None:
    cohort = stopped(models, root, 7, **own("topk", members=[0, 1]))
    _, said = train(cohort, **own("topk", members=[1]))
    assert said[0].endswith(": goes on after step 7")
    assert len(states(cohort)) == 1, "the others need it still"
    _, said = train(cohort, **own("topk"))
    assert said[0].endswith(": goes on after step 7")
    assert states(cohort) == []


def damaged(cohort: Cohort, step: int) -> None:
    (state,) = states(cohort)
    path = state.folder / f"step-{step:08d}" / "state.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_a_damaged_state_is_not_used_and_the_one_before_is(models: Cohort, root: Path) -> None:
    whole = copy_of(models, root / "whole")
    train(whole, **own("standard"))
    cohort = stopped(models, root / "damaged", 7, **own("standard", state_every=3))
    damaged(cohort, 7)
    _, said = train(cohort, **own("standard"))
    assert said[0].startswith("not used: ")
    assert "SHA-256" in said[0]
    assert said[1].endswith(": goes on after step 6")
    assert digests(cohort) == digests(whole)


def test_without_a_sound_state_it_starts_again(models: Cohort, root: Path) -> None:
    cohort = stopped(models, root, 7, **own("standard"))
    damaged(cohort, 7)
    _, said = train(cohort, {"stopped": after(7)}, **own("standard"))
    assert said[0].startswith("not used: ")
    assert said[1].endswith("as one stack")
    assert train(cohort, **own("standard"))[1][0].endswith(": goes on after step 7")


def test_a_state_of_other_options_is_not_used(models: Cohort, root: Path) -> None:
    cohort = stopped(models, root, 7, **own("topk"))
    keys = own("topk", options={"k": 5})
    _, said = train(cohort, {"stopped": after(3)}, **keys)
    assert said[0].startswith("not used: ")
    assert said[0].endswith("is of SAEs with other options: training.options.k: 4 there, 5 here")
    assert train(cohort, **keys)[1][0].endswith(": goes on after step 3")


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"precision": "float32"}, "precision: 'bfloat16' there, 'float32' here"),
        ({"compile": True}, "compile: False there, True here"),
    ],
)
def test_other_numerics_are_refused(models: Cohort, root: Path, keys: dict[str, Any], what: str) -> None:
    cohort = stopped(models, root, 7, **own("standard", precision="bfloat16"))
    training, places, _ = training_of(
        cohort, SAEConfig(**{**TINY, **own("standard", precision="bfloat16"), **keys})
    )
    for action in (training.check, training.run):
        with pytest.raises(
            RequestError, match=f"after step 7 under other numerics: {what}.*; go on under those"
        ):
            action(places)
    shutil.rmtree(cohort.folder / "unfinished")
    training.check(places)


def test_other_threads_are_not(models: Cohort, root: Path) -> None:
    whole = copy_of(models, root / "whole")
    train(whole, **own("standard"))
    cohort = stopped(models, root / "stopped", 7, **own("standard", threads=2))
    train(cohort, **own("standard"))
    assert digests(cohort) == digests(whole)


def test_a_state_that_cannot_be_kept_ends_nothing(
    models: Cohort, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polymorph.store import NoSpaceError

    def full(*_: Any) -> None:
        raise NoSpaceError("the disk is full")

    cohort = copy_of(models, root)
    monkeypatch.setattr(Unfinished, "publish", full)
    count, said = train(cohort, **own("standard", state_every=5))
    assert count == 3
    assert [line for line in said if "not kept" in line] == [
        f"the state after step {step} is not kept: the disk is full" for step in (5, 10)
    ]
