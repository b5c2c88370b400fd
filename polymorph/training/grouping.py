"""Who trains with whom, and from where: unfinished members of a request, sorted into stacks."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from polymorph.store import CorruptError, Member, State, Status

FINAL = frozenset({"completed", "diverged"})


@dataclass(frozen=True)
class Leg:
    """Members that continue together after `step`; their states, or None each at step 0."""

    members: tuple[Member, ...]
    states: tuple[State | None, ...]
    step: int

    @property
    def seeds(self) -> list[int]:
        return [member.seed for member in self.members]

    @property
    def after(self) -> int:
        """The last step that needs not be published again; -1 before there is any."""
        return -1 if None in self.states else self.step


def is_final(status: Status | None) -> bool:
    return status is not None and status.state in FINAL


def legs(members: Sequence[Member]) -> tuple[list[Leg], list[str]]:
    """One leg for every set of members that can go on together, and what could not be read on the way.

    Members that were one stack go on as one, from the newest step of which all of them have a state: then the
    continued run has the bits of the uninterrupted one. Others are put together if their steps are equal.
    """
    notes: list[str] = []
    groups: dict[tuple[object, ...], list[Member]] = defaultdict(list)
    newest: dict[int, State | None] = {}
    for member in members:
        newest[member.seed], refused = member.newest_readable_state()
        notes += refused
    stacks = {
        seed: tuple(other for other in state.manifest.facts.get("stack", ()) if other in newest)
        for seed, state in newest.items()
        if state is not None
    }
    for member in members:
        # One without a state may have been part of a stack that was killed while it published its first.
        own = stacks.get(member.seed) or next((s for s in stacks.values() if member.seed in s), ())
        state = newest[member.seed]
        alone = ("start",) if state is None else (state.step,)
        groups[own if len(own) > 1 else alone].append(member)
    return [_leg(group) for group in groups.values()], notes


def _leg(members: list[Member]) -> Leg:
    for step in sorted(set.intersection(*(set(member.states()) for member in members)), reverse=True):
        try:
            states = tuple(member.read_state(step) for member in members)
        except CorruptError:
            continue
        return Leg(tuple(members), states, step)
    return Leg(tuple(members), (None,) * len(members), 0)
