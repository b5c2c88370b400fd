"""Members of a cohort compared at their checkpoints: which pairs are missing, and computing those.

The callback calls this on checkpoints as they appear, `analyze.py` on whatever is there later: one path, one
definition of every number. Rows are kept under a key of both checkpoints and all options, so that a pair is
computed once by whoever comes second.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch

from polymorph.alignment.accumulator import moment_bytes
from polymorph.alignment.collect import Collected, collect
from polymorph.errors import RequestError
from polymorph.evidence.evidence import BLOCKS, Evidence, History
from polymorph.evidence.pairs import End, PairLabel, pairs_of
from polymorph.evidence.rows import Row
from polymorph.models.activations import (
    Coordinates,
    ModelActivations,
    ModelStream,
    coordinates_of,
    dimensions,
)
from polymorph.models.architecture import Architecture, HookedModel
from polymorph.models.functions import Functions
from polymorph.models.registry import architecture_of
from polymorph.models.symmetries import symmetries_of
from polymorph.pipeline.rows_version import rows_version
from polymorph.progress import SILENT, Progress
from polymorph.saes.config import SAEConfig
from polymorph.saes.run import SAETraining
from polymorph.saes.stored import StoredDictionaries
from polymorph.store import Cohort, CorruptError, digest
from polymorph.studies.ladder.rows import ladder_rows
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.registry import probe_of, task_of
from polymorph.tasks.task import Task

MEMORY_GIB = 4.0
"""For the moments of pairs that are computed together; more pairs are read in several passes."""
TRAJECTORY_DOCUMENTS = 256
"""A split, for the pairs of a member's own checkpoints."""


@dataclass
class Comparison:
    """The probe, the sites and the device with which the members of one cohort are compared."""

    cohort: Cohort
    task: Task
    model: Architecture
    probe: ProbeConfig
    device: torch.device
    memory_gib: float = MEMORY_GIB
    say: Callable[[str], None] = print
    progress: Progress = SILENT
    _digests: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, cohort: Cohort, device: torch.device, memory_gib: float = MEMORY_GIB) -> "Comparison":
        """With the task, the model and the probe that the cohort's own folder states."""
        return cls(cohort, task_of(cohort), architecture_of(cohort), probe_of(cohort), device, memory_gib)

    @property
    def sites(self) -> list[str]:
        return list(self.model.sites)

    @cached_property
    def coordinates(self) -> Coordinates | None:
        """In what coordinates every residual stream is read."""
        return coordinates_of(self.model.layer_norm, self.model.d_model)

    @property
    def d(self) -> int:
        """Dimensions of the activations that are compared."""
        return dimensions(self.model.layer_norm, self.model.d_model)

    def pairs_at(self, step: int, seeds: Sequence[int] | None = None) -> list[PairLabel]:
        """Every pair of members with a checkpoint at `step`, and each member with its own previous one.

        With `seeds`, only pairs in which one of them takes part.
        """
        steps = {m.seed: m.steps() for m in self.cohort.members()}
        there = [seed for seed, own in steps.items() if step in own]
        labels = [PairLabel.between(a, b, step, step) for i, a in enumerate(there) for b in there[i + 1 :]]
        for seed in there:
            if earlier := [s for s in steps[seed] if 0 < s < step]:
                labels.append(PairLabel.between(seed, seed, earlier[-1], step))
        chosen = None if seeds is None else set(seeds)
        return [p for p in labels if chosen is None or p.source in chosen or p.target in chosen]

    def last_ends(self, seeds: Sequence[int]) -> list[End]:
        """These members at their last checkpoints, whatever steps those are."""
        last = {seed: steps[-1] for seed in seeds if (steps := self.cohort.member(seed).steps())}
        return sorted(last.items())

    def final_pairs(self, seeds: Sequence[int]) -> list[PairLabel]:
        """Every pair of these members at the last checkpoint of each."""
        return pairs_of(self.last_ends(seeds))

    def rows(self, pairs: Iterable[PairLabel]) -> tuple[list[Row], list[str], int]:
        """Rows of the pairs, computing and publishing those that are missing.

        Also what had to be left out, with the reason, and how many pairs were computed.
        """
        rows: list[Row] = []
        missing: list[PairLabel] = []
        left_out: list[str] = []
        for pair in pairs:
            try:
                there = self.stored(self.key(pair), pair)
            except CorruptError as error:
                left_out.append(f"{_label(pair)} at step {pair.target_step}: {error}")
                continue
            if there is None:
                missing.append(pair)
            else:
                rows += there
        at_once = self._pairs_at_once()
        with self.progress.bar("pairs", len(missing)) as bar:
            for first in range(0, len(missing), at_once):
                rows += self._compute(missing[first : first + at_once])
                bar.update(first + at_once)
        return rows, left_out, len(missing)

    def moments(self, pairs: Sequence[PairLabel]) -> Collected:
        """One pass over the probe with every member that occurs in the pairs."""
        ends = sorted({end for pair in pairs for end in pair.ends})
        index = [(ends.index(first), ends.index(second)) for first, second in (pair.ends for pair in pairs)]
        return collect(self.source(ends), index, BLOCKS, self.probe.seed)

    def source(self, ends: Sequence[End], documents: int | None = None) -> ModelActivations:
        """The activations of members at checkpoints, on the probe or on its first documents."""
        probe = self.probe
        if documents is not None:
            probe = replace(probe, fit=min(probe.fit, documents), eval=min(probe.eval, documents))
        models = [self.load(*end) for end in ends]
        return ModelActivations(models, self.sites, self.task, probe, self.device, self.coordinates)

    def functions(self, ends: Sequence[End]) -> Functions:
        """What members at checkpoints compute."""
        models = [self.load(*end) for end in ends]
        return Functions(
            models,
            self.sites,
            self.task,
            self.probe,
            self.device,
            self.coordinates,
            symmetries_of(self.model),
        )

    def stream(
        self, ends: Sequence[End], sites: Sequence[str], tokens: int, seed: int, first: int = 0
    ) -> ModelStream:
        """Fresh activations of members at checkpoints, `tokens` a batch."""
        models = [self.load(*end) for end in ends]
        return ModelStream(models, sites, self.task, tokens, seed, self.device, first, self.coordinates)

    def sae_training(self, config: SAEConfig, first: int = 0) -> SAETraining:
        """The training of SAEs of these members, on a stream that begins at a step."""
        stream = partial(self.stream, tokens=config.batch_size, seed=config.data_seed, first=first)
        return SAETraining(self.cohort, config, self.sites, self.d, stream, self.device)

    def evidence(self, ends: Sequence[End], pairs: Sequence[PairLabel]) -> Evidence:
        """What the studies read of these members and their own earlier checkpoints; damaged SAEs count as none."""

        def history(seed: int) -> History:
            def source(steps: Sequence[int]) -> ModelActivations:
                return self.source([(seed, step) for step in steps], TRAJECTORY_DOCUMENTS)

            steps = [step for step in self.cohort.member(seed).steps() if step <= dict(ends)[seed]]
            return History(seed, steps, source)

        histories = [history(seed) for seed, _ in ends]
        return Evidence(
            self.cohort.name,
            ends,
            pairs,
            self.source(ends),
            self.probe.seed,
            histories=histories,
            coordinates=self.coordinates,
            functions=self.functions,
            dictionaries=StoredDictionaries(self.cohort, lenient=True),
        )

    def _pairs_at_once(self) -> int:
        """As many pairs as their moments fit into the memory, each with two members of its own."""
        d = self.d
        pair = len(self.sites) * 2 * (moment_bytes(2, 1, d, BLOCKS) + moment_bytes(4, 1, d, 1))
        return max(1, int(self.memory_gib * 2**30 / pair))

    def load(self, seed: int, step: int) -> HookedModel:
        """A member's model at a step, verified, for evaluation."""
        there = self.cohort.member(seed).read_step(step)
        try:
            model = self.model.hooked(there.weights, there.reference, there.buffers)
        except RequestError as error:
            raise CorruptError(f"{self.cohort.member(seed).name} at step {step}: {error}") from error
        return model.to(self.device).eval().requires_grad_(False)

    def key(self, pair: PairLabel) -> str:
        """SHA-256 of all that decides the rows of a pair."""
        first, second = (self._digest(*end) for end in pair.ends)
        options = {"probe": self.probe.identity(), "sites": self.sites, "task": self.cohort.identity["task"]}
        return digest(
            {"first": first, "second": second, "version": rows_version("ladder"), "blocks": BLOCKS, **options}
        )

    def _digest(self, seed: int, step: int) -> str:
        return self._read(seed, step)[0]

    def weights_digest(self, end: End) -> str:
        """Equal for two checkpoints that are one model, whoever's they are."""
        return self._read(*end)[1]

    def _read(self, seed: int, step: int) -> tuple[str, str]:
        if (seed, step) not in self._digests:
            there = self.cohort.member(seed).read_step(step)
            if there.reference is not None:  # what it refers to may be gone, or have changed
                self.load(seed, step)
            self._digests[seed, step] = there.digest, there.weights_digest
        return self._digests[seed, step]

    def stored(self, key: str, pair: PairLabel, study: str | None = None) -> list[Row] | None:
        """The rows of a pair under a key, None if there are none; damaged ones are removed, which is said.

        Those of a `study` beside the ladder lie in a folder of their own.
        """
        try:
            rows = self.cohort.pairs.read(key, _label(pair, study))
        except CorruptError as error:
            self.say(f"computed again: {error}")
            self.cohort.pairs.discard(key, _label(pair, study))
            return None
        return None if rows is None else [Row.from_dict(row) for row in rows]

    def store(self, key: str, pair: PairLabel, rows: Sequence[Row], study: str | None = None) -> None:
        """Publish the rows of a pair under a key of all that decides them."""
        facts = {"version": rows_version(study or "ladder"), "steps": [pair.source_step, pair.target_step]}
        self.cohort.pairs.publish(key, _label(pair, study), [row.to_dict() for row in rows], facts)

    def _compute(self, pairs: list[PairLabel]) -> list[Row]:
        moments = self.moments(pairs)
        documents = {"fit_documents": self.probe.fit, "eval_documents": self.probe.eval}
        rows = ladder_rows(moments.result(), pairs, self.cohort.name, **documents)
        for pair in pairs:
            self.store(self.key(pair), pair, [row for row in rows if _is_about(row, pair)])
        return rows


def _is_about(row: Row, pair: PairLabel) -> bool:
    ends = {(row.source, row.source_step), (row.target, row.target_step)}
    return ends == set(pair.ends)


def _label(pair: PairLabel, study: str | None = None) -> str:
    seeds = f"seed-{pair.source:04d}--seed-{pair.target:04d}"
    return seeds if study is None else f"{seeds}--{study}"
