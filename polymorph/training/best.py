"""The best evaluation of a member: what makes one better, and where its weights are kept.

They stand on a shelf of their own while the member trains, and among its checkpoints once it has completed. Which
evaluation was the best is part of the state for resuming. The shelf holds the best so far and, until those are pruned,
what the kept states call the best: whoever resumes from one of them finds its weights.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from polymorph.store import CorruptError, Manifest, Member, State
from polymorph.training.evaluation import least_accuracy, mean_loss
from polymorph.training.stack import Stack

FACT = "best"
"""The key under which the manifest of a state says which evaluation was the best so far; null before any."""


@dataclass(frozen=True)
class Evaluated:
    """How good a member was after a step."""

    step: int
    least_accuracy: float
    """Over heads and distributions."""
    loss: float
    """Sum over heads of the mean over distributions, in nats."""

    def beats(self, other: "Evaluated | None") -> bool:
        """Whether its accuracy is larger or, where that is equal, its loss smaller."""
        return other is None or (self.least_accuracy, -self.loss) > (other.least_accuracy, -other.loss)

    def __str__(self) -> str:
        measured = f"least accuracy {self.least_accuracy:.6g}, loss {self.loss:.4g}"
        return f"best evaluation at step {self.step}: {measured}"


def evaluated(step: int, metrics: Mapping[str, Tensor]) -> list[Evaluated | None]:
    """The evaluation of each member; None where a number is not finite, which is never the best."""
    finite = torch.stack([value.isfinite() for value in metrics.values()]).all(0).tolist()
    numbers = zip(least_accuracy(metrics).tolist(), mean_loss(metrics).tolist(), strict=True)
    return [
        Evaluated(step, *own) if whole and all(map(math.isfinite, own)) else None
        for whole, own in zip(finite, numbers, strict=True)
    ]


def has_finite_weights(stack: Stack, index: int) -> bool:
    """Whether all parameters of one member are finite, those that no evaluation meets included."""
    return all(bool(p[index].isfinite().all()) for _, p in stack.named_member_parameters())


def fact_of(best: Evaluated | None) -> dict[str, Any] | None:
    """What the manifest of a state holds under `FACT`."""
    return None if best is None else asdict(best)


def resumed(member: Member, state: State | None) -> tuple[Evaluated | None, str]:
    """The best evaluation up to a state, and why it is sought anew from there, if it is."""
    if state is None or (state.step == 0 and FACT not in state.manifest.facts):
        return None, ""
    anew = f"the best evaluation of {member.name} is sought from step {state.step} on"
    if FACT not in state.manifest.facts:
        return None, f"{anew}: its state was kept before there was one"
    if (stated := state.manifest.facts[FACT]) is None:
        return None, ""
    best = Evaluated(**stated)
    try:
        member.read_best(best.step)
    except CorruptError as error:
        return None, f"{anew}: {error}"
    return best, ""


def is_outdated(manifest: Manifest) -> bool:
    """Whether it is that of a state kept before states said which evaluation was the best."""
    return manifest.facts.get("kind") == "state" and FACT not in manifest.facts


def keep(
    member: Member,
    best: Evaluated,
    weights: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> None:
    """Publish the weights of a new best evaluation, then remove older ones that nothing refers to."""
    member.publish_best(best.step, weights, {**facts, "evaluation": asdict(best)}, files)
    prune(member, best)


def prune(member: Member, best: Evaluated | None) -> None:
    """Remove what is older than the best and what no state would resume from.

    A newer one stays: it was published after the state that was resumed from, and will be published again.
    """
    if best is None:
        return
    wanted = {best.step, *_stated(member)}
    for step in member.best_steps():
        if step < best.step and step not in wanted:
            member.remove_best(step)


def _stated(member: Member) -> set[int]:
    """The best steps by the kept states, each at its time."""
    found = set()
    for step in member.states():
        with suppress(CorruptError):
            if (stated := member.state_facts(step).get(FACT)) is not None:
                found.add(int(stated["step"]))
    return found


def finish(member: Member, best: Evaluated, files: Mapping[str, bytes]) -> None:
    """Publish the best among the checkpoints of a completed member, and keep no other on its shelf.

    Where its step has a checkpoint already, that one has the same weights.
    """
    if best.step not in member.steps():
        kept = member.read_best(best.step)
        member.publish_step(best.step, kept.weights, kept.manifest.facts, files=files)
    for step in member.best_steps():
        if step != best.step:
            member.remove_best(step)


def row_of(best: Evaluated) -> dict[str, Any]:
    """The row of the member's log that names the best."""
    return {"kind": "best", **asdict(best)}
