"""The state of SAEs in training, kept in the cohort until they are published, so that a training goes on where it was.

A state is of one stack, and holds what each of its SAEs needs apart from the others: a request for some of them goes
on from it as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polymorph.errors import RequestError
from polymorph.kernels import native
from polymorph.saes.places import Place
from polymorph.store import Cohort, State, digest
from polymorph.store.canonical_json import plain
from polymorph.store.differences import side_by_side
from polymorph.training.numerics import capability

KEY = 16
"""Digits of the digest of its places in the name of a state."""


@dataclass(frozen=True)
class Kept:
    """What a training goes on from: the tensors of each place, after `step`."""

    name: str
    step: int
    states: list[dict[str, Tensor]]


@dataclass(frozen=True)
class UnfinishedSAEs:
    """The states of one family. `facts` are those that SAEs of a place are published with, `numerics` those of here."""

    cohort: Cohort
    family: str
    facts: Callable[[Place], Mapping[str, Any]]
    numerics: Mapping[str, Any]
    say: Callable[[str], None]

    def publish(self, places: Sequence[Place], step: int, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Keep the states of these places after `step` instead of the earlier ones."""
        tensors = {
            f"{index:04d}/{name}": value
            for index, state in enumerate(states)
            for name, value in state.items()
        }
        facts = {**self._facts(places), "places": [_plain(place) for place in places]}
        self.cohort.unfinished(self._name(places)).publish(step, tensors, facts)

    def find(self, places: Sequence[Place]) -> Kept | None:
        """The state furthest on that has all of these places, if there is one.

        A damaged one, or one with other options, is not used, which is said. `RequestError` for one under other
        numerics: its bits could not be those of a training that was never stopped.
        """
        found: list[Kept] = []
        for name in self._names():
            state = self._readable(name)
            indices = None if state is None else self._indices(state, places)
            if state is not None and indices is not None and self._is_ours(name, state, indices, places):
                found.append(Kept(name, state.step, [_part(state.tensors, index) for index in indices]))
        return max(found, key=lambda kept: kept.step, default=None)

    def make_room(self, places: Sequence[Place], kept: Kept | None) -> None:
        """Remove the states under the name of these places, where a training of them does not go on from those."""
        name = self._name(places)
        if name in self._names() and (kept is None or kept.name != name):
            self.cohort.unfinished(name).remove()

    def remove(self, is_there: Callable[[Place], bool]) -> None:
        """Remove the states whose SAEs are all published."""
        for name in self._names():
            state, _ = self.cohort.unfinished(name).newest()
            if state is not None and all(is_there(place) for place in _places(state)):
                self.cohort.unfinished(name).remove()

    def sweep(self) -> None:
        for name in self._names():
            self.cohort.unfinished(name).sweep()

    def _names(self) -> list[str]:
        prefix = f"{self.family}--"
        names = self.cohort.unfinished_names()
        return [name for name in names if name.startswith(prefix) and len(name) == len(prefix) + KEY]

    def _name(self, places: Sequence[Place]) -> str:
        return f"{self.family}--{digest([_plain(place) for place in places])[:KEY]}"

    def _facts(self, places: Sequence[Place]) -> dict[str, Any]:
        return {"saes": [dict(self.facts(place)) for place in places], "numerics": dict(self.numerics)}

    def _readable(self, name: str) -> State | None:
        state, refused = self.cohort.unfinished(name).newest()
        for why in refused:
            self.say(f"not used: {why}")
        return state

    def _indices(self, state: State, places: Sequence[Place]) -> list[int] | None:
        """Where the places stand in the state; None if it does not have all of them."""
        there = _places(state)
        if not set(places) <= set(there):
            return None
        return [there.index(place) for place in places]

    def _is_ours(self, name: str, state: State, indices: Sequence[int], places: Sequence[Place]) -> bool:
        saes = state.manifest.facts["saes"]
        there = {"saes": [saes[index] for index in indices], "numerics": state.manifest.facts["numerics"]}
        here = plain(self._facts(places))
        if there == here:
            return True
        folder = self.cohort.unfinished(name).folder
        if _without_precision(there["saes"]) == _without_precision(here["saes"]):
            differing = side_by_side(there["numerics"], here["numerics"])
            raise RequestError(
                f"sae.family={self.family}: its training stopped after step {state.step} under other numerics: "
                f"{differing}; go on under those, or remove {folder} to start again"
            )
        first = next(i for i, own in enumerate(here["saes"]) if own != there["saes"][i])
        differing = side_by_side(there["saes"][first], here["saes"][first])
        self.say(f"not used: {folder} is of SAEs with other options: {differing}")
        return False


def _plain(place: Place) -> list[Any]:
    return [place.seed, place.step, place.site, place.variant]


def _places(state: State) -> list[Place]:
    return [Place(*each) for each in state.manifest.facts["places"]]


def _part(tensors: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    prefix = f"{index:04d}/"
    return {name.removeprefix(prefix): own for name, own in tensors.items() if name.startswith(prefix)}


def _without_precision(saes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**own, "training": {key: value for key, value in own["training"].items() if key != "precision"}}
        for own in saes
    ]


def numerics_here(device: torch.device, precision: str, compiled: bool, saes: int) -> dict[str, Any]:
    """Everything that decides the last bits of a training besides its options.

    On an accelerator SAEs share products, so there the number of SAEs that are trained at once counts too.
    """
    on_cpu = device.type == "cpu"
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "capability": capability() if on_cpu else "",
        "compiler": native.compiler_version() if compiled else "",
        "precision": precision,
        "compile": compiled,
        "stack": 0 if on_cpu else saes,
    }
