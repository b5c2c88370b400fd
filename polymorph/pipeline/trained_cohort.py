"""The members of a cohort on disk as a source of an analysis: which of them, at which steps, in which pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch

from polymorph.errors import RequestError
from polymorph.evidence.evidence import Evidence, check_size
from polymorph.evidence.pairs import End, PairLabel, pairs_of
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.member_facts import evaluations_of, history_of, state_of, summary_of
from polymorph.pipeline.pair_cache import Found, PairCache
from polymorph.pipeline.pair_studies import LADDER
from polymorph.pipeline.source import Facts, Reasons
from polymorph.progress import SILENT, Progress
from polymorph.store import Cohort, CorruptError, Member, digest
from polymorph.studies.study import Kind, Options, Study


@dataclass
class TrainedCohort:
    """Members of a cohort on disk, and the pairs of their checkpoints that are compared."""

    cohort: Cohort
    device: torch.device
    seeds: Sequence[int] | None = None
    """None is every member that has a checkpoint."""
    steps: Sequence[int] | Literal["all", "last"] = "all"
    scheme: str = "all"
    """Which pairs are compared: see `evidence.pairs.SCHEMES`."""
    memory_gib: float = 8.0
    options: Mapping[str, Options] = field(default_factory=dict)
    """By study, what is asked of it."""
    progress: Progress = SILENT
    left_out: Reasons = field(default_factory=list)
    kind: Kind = "trained"

    def __post_init__(self) -> None:
        whole = Comparison.of(self.cohort, self.device, self.memory_gib)
        self.comparison = replace(whole, progress=self.progress)
        self.members = self._members()
        self.pairs = self._pairs()
        self._check_size()
        self._check_options()

    @property
    def name(self) -> str:
        return self.cohort.name

    @property
    def d(self) -> int:
        return self.comparison.d

    @property
    def folder(self) -> Path:
        return self.cohort.folder

    @property
    def fingerprints(self) -> Mapping[str, str]:
        return self.cohort.fingerprints

    def settle(self) -> None:
        """Leave out checkpoints that cannot be read and members that are one model; `RequestError` if all are."""
        self._leave_out_unreadable()
        self._leave_out_duplicates()

    def identity(self, study: Study) -> Mapping[str, Any]:
        """Of the ladder, the keys of all pairs; of every other study, the checkpoints that it reads."""
        if study.name == LADDER.name:
            return {"pairs": {f"{pair}": self.comparison.key(pair) for pair in self.pairs}}
        return self._evidence_identity

    @cached_property
    def _evidence_identity(self) -> Mapping[str, Any]:
        ends, pairs = self._compared()
        return {
            "cohort": self.name,
            "architecture": self.fingerprints["architecture"],
            "ends": [[*end, self.comparison.digest_at(end)] for end in ends],
            "pairs": [f"{pair}" for pair in pairs],
            "histories": [
                [
                    [step, _digest(self.cohort.member(seed), step)]
                    for step in self.comparison.steps_until((seed, last))
                ]
                for seed, last in ends
            ],
            **self.comparison.identity(),
        }

    def page_identity(self) -> Mapping[str, Any]:
        """What is evaluated while members train, and how that ended."""
        return {m.name: [digest(evaluations_of(m)), state_of(m)] for m in self.cohort.members()}

    def saes(self) -> Mapping[str, str]:
        return self._saes

    @cached_property
    def _saes(self) -> dict[str, str]:
        found = {}
        for member in self.members:
            for place in member.saes():
                try:
                    found[f"{member.name} {place}"] = member.read_sae(*place).manifest.digest
                except CorruptError as error:
                    found[f"{member.name} {place}"] = str(error)
        return found

    def ladder(self) -> Found:
        return PairCache(self.comparison).rows(LADDER, self.pairs)

    def evidence(self) -> Evidence | None:
        """The pairs at the last step whose checkpoints can be read; None without any."""
        ends, pairs = self._compared()
        if not pairs:
            return None
        evidence = self.comparison.evidence(ends, pairs)
        return replace(evidence, options={name: own.request() for name, own in self.options.items()})

    def _compared(self) -> tuple[list[End], list[PairLabel]]:
        """At the last step, the members that are compared and their pairs."""
        pairs = [pair for pair in pairs_of(self._last_ends(), self.scheme) if pair in self.pairs]
        return [end for end in self._last_ends() if any(end in pair.ends for pair in pairs)], pairs

    def facts(self) -> Facts:
        identity, head = self.cohort.identity, self.comparison.task.headline
        parts = "; ".join(f"{part} {value[:12]}" for part, value in self.cohort.fingerprints.items())
        return Facts(
            identity["task"],
            identity["architecture"],
            [summary_of(member, head) for member in self.members],
            history_of(self.members),
            head,
            self._notes(),
            {"config": f"{parts} (SHA-256 of each part of the cohort's identity)"},
        )

    def _members(self) -> list[Member]:
        chosen = []
        for member in self.cohort.members():
            if self.seeds is not None and member.seed not in self.seeds:
                self.left_out.append((member.name, "not asked for"))
            elif not member.steps():
                self.left_out.append((member.name, "it has no checkpoint yet"))
            else:
                chosen.append(member)
        known = {member.seed for member in self.cohort.members()}
        if missing := sorted(set(self.seeds or ()) - known):
            raise RequestError(f"seeds={list(self.seeds or ())}: {self.cohort.name} has no seed {missing[0]}")
        if len(chosen) < 2:
            raise RequestError(
                f"cohort={self.cohort.name}: an analysis compares members and needs at least two with a "
                f"checkpoint; there {'is 1' if chosen else 'are 0'}: train another seed"
            )
        return chosen

    def _pairs(self) -> list[PairLabel]:
        seeds = [member.seed for member in self.members]
        final = self.comparison.final_pairs(seeds)
        shared = self._shared_steps()
        if self.steps == "last":
            late = [p for p in self.comparison.pairs_at(shared[-1]) if p.role == "ceiling"] if shared else []
            return self._chosen([*final, *late])
        asked = shared if isinstance(self.steps, str) else list(self.steps)
        if unknown := [step for step in asked if step not in shared]:
            raise RequestError(f"step={unknown[0]}: no two members have this checkpoint; there are {shared}")
        pairs = [pair for step in asked for pair in self.comparison.pairs_at(step, None)]
        return self._chosen([*pairs, *(final if self.steps == "all" else [])])

    def _chosen(self, pairs: Sequence[PairLabel]) -> list[PairLabel]:
        """Those of the members asked for that the scheme compares, once each, and the ceilings."""
        seeds = [member.seed for member in self.members]
        wanted = {(p.source, p.target) for p in pairs_of([(seed, 0) for seed in seeds], self.scheme)}
        wanted |= {(seed, seed) for seed in seeds}
        return list(dict.fromkeys(pair for pair in pairs if (pair.source, pair.target) in wanted))

    def _last_ends(self) -> list[End]:
        """Every member at the step at which it is looked at most closely."""
        if isinstance(self.steps, str):
            return self.comparison.last_ends([member.seed for member in self.members])
        return [(m.seed, max(self.steps)) for m in self.members if max(self.steps) in m.steps()]

    def _check_size(self) -> None:
        ends = self._last_ends()
        check_size(len(ends), len(pairs_of(ends, self.scheme)), self.d, self.memory_gib)

    def _check_options(self) -> None:
        """`RequestError` for what these members cannot be asked; a checkpoint is read where options need one."""
        evidence = replace(self.comparison.evidence([], []), ends=self._last_ends()[:1])
        for options in self.options.values():
            options.check(evidence)

    def _leave_out_unreadable(self) -> None:
        self.pairs, problems = self.comparison.readable(self.pairs)
        self.left_out += [("checkpoint", problem) for problem in dict.fromkeys(problems)]

    def _leave_out_duplicates(self) -> None:
        """Two checkpoints with equal weights are one model: nothing is said of the map between them."""
        same = [pair for pair in self.pairs if len(set(map(self.comparison.weights_digest, pair.ends))) == 1]
        for pair in same:
            (first, step), (second, later) = pair.ends
            self.left_out.append(
                (
                    self.cohort.member(second).name,
                    f"seed {second} at step {later} has the weights of seed {first} at step {step}: they are one "
                    "model, and are not compared",
                )
            )
        twice = {pair.target for pair in same if pair.ends in _last(self.comparison, self.members)}
        self.pairs = [p for p in self.pairs if p not in same and not {p.source, p.target} & twice]
        self.members = [member for member in self.members if member.seed not in twice]
        if len(self.members) < 2:
            raise RequestError(f"cohort={self.cohort.name}: all its members are one model; there is no pair")

    def _shared_steps(self) -> list[int]:
        steps = [set(member.steps()) for member in self.members]
        return sorted({step for a, b in combinations(steps, 2) for step in a & b})

    def _notes(self) -> list[str]:
        """How the activations were read, where that is not as they are."""
        d, d_model = self.d, self.comparison.model.d_model
        if d == d_model:
            return []
        return [
            f"Every residual stream is read in {d} coordinates of its {d_model}: without its mean over dimensions, "
            "which every LayerNorm that reads it subtracts. The exact symmetry of such a stream is "
            f"O({d}), and all laws here are those of {d} dimensions."
        ]


def _last(comparison: Comparison, members: Sequence[Member]) -> set[tuple[End, End]]:
    """The ends of every pair at the members' last checkpoints."""
    return {pair.ends for pair in comparison.final_pairs([member.seed for member in members])}


def _digest(member: Member, step: int) -> str:
    """Of a checkpoint, or why it has none."""
    try:
        return member.step_digest(step)
    except CorruptError as error:
        return str(error)
