"""Which SAEs a config asks for, of what a cohort has."""

from pathlib import Path
from typing import Any

import pytest
import torch

from polymorph.errors import RequestError
from polymorph.saes.config import SAEConfig
from polymorph.saes.places import Place, chosen_sites, places_of
from polymorph.store import Cohort

SITES = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.0.hook_resid_post")
STEPS = {0: (0, 10, 20), 1: (0, 10), 3: (0, 10, 20, 30)}
IDENTITY = {"architecture": {"d_model": 4}, "task": {"name": "dyck3"}, "probe": {"seed": 0}}


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Three members with checkpoints, and one, 2, without any."""
    cohort = Cohort.create(tmp_path / "dyck", IDENTITY)
    for seed, steps in STEPS.items():
        for step in steps:
            cohort.member(seed).publish_step(step, {"w": torch.ones(2)}, {})
    cohort.member(2).write_config({"seed": 2})
    return cohort


def asked(cohort: Cohort, seeds: list[int] | None = None, **keys: Any) -> list[Place]:
    return places_of(cohort, SAEConfig(**keys), SITES, seeds)


def ends(places: list[Place]) -> list[tuple[int, int]]:
    return list(dict.fromkeys((place.seed, place.step) for place in places))


def test_by_default_everybody_at_its_last_checkpoint(cohort: Cohort) -> None:
    places = asked(cohort)
    assert places == [
        Place(seed, steps[-1], site, "distinct") for seed, steps in STEPS.items() for site in SITES
    ]
    assert len(set(places)) == len(places) == 9


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"members": [3, 0]}, [(3, 30), (0, 20)]),
        ({"members": 1}, [(1, 10)]),
        ({"members": [0]}, [(0, 20)]),  # 0 is a seed
        ({"at": "all", "members": [0, 1]}, [(0, 0), (0, 10), (0, 20), (1, 0), (1, 10)]),
        ({"at": [10, 0]}, [(0, 10), (0, 0), (1, 10), (1, 0), (3, 10), (3, 0)]),
        ({"at": 10}, [(0, 10), (1, 10), (3, 10)]),
        ({"at": [0], "members": [1]}, [(1, 0)]),
    ],
)
def test_members_and_steps_that_are_named(
    cohort: Cohort, keys: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    assert ends(asked(cohort, **keys)) == expected


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ("all", SITES),
        (SITES[1], SITES[1:2]),
        ([SITES[2], SITES[0]], (SITES[0], SITES[2])),  # in the model's order
        ([SITES[2], SITES[2]], SITES[2:]),
    ],
)
def test_sites_that_are_named(cohort: Cohort, sites: Any, expected: tuple[str, ...]) -> None:
    assert chosen_sites(SAEConfig(sites=sites), SITES) == list(expected)
    assert [place.site for place in asked(cohort, sites=sites, members=[1])] == list(expected)


def test_variants_that_are_named(cohort: Cohort) -> None:
    variants = ["distinct", "unrelated"]
    places = asked(cohort, variants=variants, members=[1], sites=SITES[0])
    assert [place.variant for place in places] == variants


def test_only_those_that_the_request_trains(cohort: Cohort) -> None:
    assert ends(asked(cohort, seeds=[0, 3])) == [(0, 20), (3, 30)]
    assert ends(asked(cohort, seeds=[0, 3], members=[0, 1])) == [(0, 20)]
    with pytest.raises(RequestError, match=r"sae.members=\[1\]: none of seed=\[0, 3\]"):
        asked(cohort, seeds=[0, 3], members=[1])
    with pytest.raises(RequestError, match="no member has a checkpoint yet"):
        asked(cohort, seeds=[2])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a seed that is not there": ({"members": [0, 7]}, r"no seed 7 with a checkpoint; there are 0, 1, 3"),
    "one without a checkpoint": ({"members": [2]}, r"no seed 2 with a checkpoint; there are 0, 1, 3"),
    "a member in letters": ({"members": "newest"}, r"sae.members='newest': all"),
    "members in a list": ({"members": [[0]]}, r"sae.members=\[\[0\]\]"),
    "no members": ({"members": []}, r"sae.members=\[\]"),
    "a member twice": ({"members": [0, 0]}, r"sae.members=\[0, 0\]: each of them once"),
    "a member below 0": ({"members": [-1]}, r"sae.members=\[-1\]"),
    "a member that is true": ({"members": [True]}, r"sae.members=\[True\]"),
    "a site": (
        {"sites": ["blocks.0.hook_resid_md"]},
        r"sae.sites=blocks.0.hook_resid_md \(did you mean 'blocks.0.hook_resid_mid'\?\): one of blocks",
    ),
    "a site that is a number": ({"sites": 3}, r"sae.sites=3: one of blocks.0.hook_resid_pre"),
    "no site": ({"sites": []}, r"sae.sites=\[\]: all, or a list of blocks"),
    "a site that is nothing": ({"sites": None}, r"sae.sites=None: one of"),
    "a step that one has not": (
        {"at": [20]},
        r"sae.at: seed 1 has no checkpoint at step 20; there are 0, 10$",
    ),
    "a step in letters": ({"at": "first"}, r"sae.at='first': all, last"),
    "no step": ({"at": []}, r"sae.at=\[\]"),
    "a step twice": ({"at": [0, 0]}, r"sae.at=\[0, 0\]: each of them once"),
    "nothing for a step": ({"at": None}, r"sae.at=None"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_there_is_refused(cohort: Cohort, what: str) -> None:
    keys, message = WRONG[what]
    with pytest.raises(RequestError, match=message):
        asked(cohort, **keys)


def test_a_cohort_of_nobody_is_refused(tmp_path: Path) -> None:
    empty = Cohort.create(tmp_path / "empty", IDENTITY)
    with pytest.raises(
        RequestError, match=r"cohort\.name=empty: no member has a checkpoint yet; train one first"
    ):
        asked(empty)
    with pytest.raises(RequestError, match="no seed 0 with a checkpoint; there are none"):
        asked(empty, members=[0])
