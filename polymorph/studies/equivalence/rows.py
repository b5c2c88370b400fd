"""Do the members compute the same function? Their losses, and how far their answers are from one another.

Whatever is said of a rotation between two members takes for granted that they compute the same. Here is by how much
they do not: the KL divergence between their answers, and how often their most probable classes are the same, on
held-out inputs of every evaluation distribution. What a divergence is worth is read off others on the same inputs:
between the last two checkpoints of one member (the ceiling), between members early in training and before it, and
between a member and the constant answer nearest to it. Members that know nothing answer nearly alike, so that their
divergence is small too: in shares of what their answers say at all (`relative_kl`) it is not. Intervals are over
documents, for these members.
"""

import math
from collections.abc import Iterator

from polymorph.evidence.evidence import Evidence
from polymorph.evidence.pairs import End
from polymorph.evidence.rows import Row
from polymorph.studies.equivalence.answers import EARLY, UNTRAINED, Group, Read

SEQUENCES = 512
"""Of every evaluation distribution, or as many as the probe has eval documents, if those are fewer."""


def study_rows(evidence: Evidence) -> Iterator[Row]:
    """Of every member `loss` and `accuracy`, of every ordered pair `kl`, `relative_kl`, `kl_excess`, `agreement` and
    `agreement_where_wrong`, by distribution and head.

    `relative_kl` is in shares of the divergence of the source's answers from their own mean, the nearest constant
    answer: 0 for one function, and 1 for a target that says no more than that constant; it is missing where the
    source's answers hardly differ. `kl_excess` is how much more `kl` is than the mean ceiling of the two members,
    paired by documents; it is missing where one of them has no earlier checkpoint.
    """
    if evidence.functions is None:
        return
    members = Group(evidence.ends, evidence.index, "estimate")
    ceilings = {later[0]: _read(evidence, group) for later, group in _ceilings(evidence)}
    for distribution, read in _read(evidence, members).items():
        yield from read.member_rows(range(len(members.ends)))
        yield from read.pair_rows()
        yield from read.constant_rows()
        yield from read.excess_rows({seed: own[distribution] for seed, own in ceilings.items()})
    for own in ceilings.values():
        for read in own.values():
            yield from read.member_rows([0])
            yield from read.pair_rows()
    for group in _early(evidence):
        for read in _read(evidence, group).values():
            yield from read.member_rows(range(len(group.ends)))
            yield from read.pair_rows()


def _ceilings(evidence: Evidence) -> Iterator[tuple[End, Group]]:
    """Every member that has an earlier checkpoint, not its first weights, with that one."""
    last = dict(evidence.ends)
    for history in evidence.histories:
        earlier = [step for step in history.steps if 0 < step < last[history.seed]]
        if earlier:
            later = (history.seed, last[history.seed])
            yield later, Group([(history.seed, max(earlier)), later], [(0, 1)], "ceiling")


def _early(evidence: Evidence) -> Iterator[Group]:
    """All members before training, and at the step that all have nearest to the middle of it in its logarithm.

    Not at the first one: after a step of warm-up members are what they were before it.
    """
    steps = [set(history.steps) for history in evidence.histories]
    if len(steps) < len(evidence.ends):
        return
    last = min(dict(evidence.ends).values())
    shared = {step for step in set.intersection(*steps) if step < last}
    trained = sorted(shared - {0}, key=lambda step: (abs(math.log(step) - math.log(last) / 2), step))
    for control, found in ((UNTRAINED, shared & {0}), (EARLY, trained[:1])):
        for step in found:
            ends = [(seed, step) for seed, _ in evidence.ends]
            yield Group(ends, evidence.index, "control", control)


def _read(evidence: Evidence, group: Group) -> dict[str, "Read"]:
    """By distribution, what the members of a group say."""
    assert evidence.functions is not None
    functions = evidence.functions(group.ends)
    sequences = min(SEQUENCES, functions.probe.eval)
    found = {}
    for distribution in functions.distributions:
        read = Read(evidence, group, distribution, sequences)
        for chunk in functions.inputs(distribution, sequences):
            read.update(functions, chunk)
        found[distribution] = read
    return found
