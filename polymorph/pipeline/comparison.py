"""Members of a cohort as they are compared: on which probe, at which sites, and everything that studies read of them.

The callback asks for members whose checkpoints have just appeared, `analyze.py` for whatever is there later: one
path, one definition of every number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from polymorph.alignment.collect import Collected, collect
from polymorph.errors import RequestError
from polymorph.evidence.bounded_cache import BoundedCache
from polymorph.evidence.evidence import BLOCKS, Evidence, History
from polymorph.evidence.pairs import End, PairLabel, pairs_of
from polymorph.models.activations import (
    Coordinates,
    ModelActivations,
    ModelStream,
    coordinates_of,
    dimensions,
)
from polymorph.models.architecture import Architecture, HookedModel, Weights
from polymorph.models.functions import Functions
from polymorph.models.registry import architecture_of
from polymorph.models.symmetries import symmetries_of
from polymorph.progress import SILENT, Progress
from polymorph.saes.config import SAEConfig
from polymorph.saes.stored import StoredDictionaries
from polymorph.store import Cohort, CorruptError, Manifest, digest
from polymorph.store.checkpoints import WEIGHTS
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.registry import probe_of, task_of
from polymorph.tasks.task import Task

if TYPE_CHECKING:
    from polymorph.saes.run import SAETraining

MEMORY_GIB = 4.0
"""For the moments of pairs that are computed together; more pairs are read in several passes."""
MODELS_SHARE = 1 / 8
"""Of the memory, for members that stay open."""
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
    _digests: dict[End, tuple[str, str]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._models: BoundedCache[End, HookedModel] = BoundedCache(
            int(self.memory_gib * 2**30 * MODELS_SHARE)
        )

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

    def steps_until(self, end: End) -> list[int]:
        """The checkpoints of a member up to this one."""
        return [step for step in self.cohort.member(end[0]).steps() if step <= end[1]]

    def last_ends(self, seeds: Sequence[int]) -> list[End]:
        """These members at their last checkpoints, whatever steps those are."""
        last = {seed: steps[-1] for seed in seeds if (steps := self.cohort.member(seed).steps())}
        return sorted(last.items())

    def final_pairs(self, seeds: Sequence[int]) -> list[PairLabel]:
        """Every pair of these members at the last checkpoint of each."""
        return pairs_of(self.last_ends(seeds))

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

    def sae_training(self, config: SAEConfig, first: int = 0) -> "SAETraining":
        """The training of SAEs of these members, on a stream that begins at a step."""
        from polymorph.saes.run import SAETraining  # it needs Lightning, and comparing activations does not

        stream = partial(self.stream, tokens=config.batch_size, seed=config.data_seed, first=first)
        return SAETraining(self.cohort, config, self.sites, self.d, stream, self.device)

    def evidence(self, ends: Sequence[End], pairs: Sequence[PairLabel]) -> Evidence:
        """What the studies read of these members and their own earlier checkpoints; damaged SAEs count as none."""

        def history(seed: int) -> History:
            def source(steps: Sequence[int]) -> ModelActivations:
                return self.source([(seed, step) for step in steps], TRAJECTORY_DOCUMENTS)

            return History(seed, self.steps_until((seed, dict(ends)[seed])), source)

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

    def load(self, seed: int, step: int) -> HookedModel:
        """A member's model at a step, verified, for evaluation: not to be changed. It is opened once."""
        return self._models.once((seed, step), lambda: self._read_model((seed, step)), _model_bytes)

    def hold(self, end: End, manifest: Manifest, weights: Weights) -> None:
        """A member that has just been published, and is in memory: its checkpoint need not be read back."""
        self._digests[end] = manifest.digest, manifest.files[WEIGHTS].sha256
        self._models.once(end, lambda: self._opened(end, weights, None, {}), _model_bytes)

    def _read_model(self, end: End) -> HookedModel:
        there = self.cohort.member(end[0]).read_step(end[1])
        model = self._opened(end, there.weights, there.reference, there.buffers)
        self._digests[end] = there.digest, there.weights_digest  # last: what cannot be opened has none
        return model

    def _opened(
        self, end: End, weights: Weights, reference: Mapping[str, Any] | None, buffers: Weights
    ) -> HookedModel:
        try:
            model = self.model.hooked(weights, reference, buffers)
        except RequestError as error:
            raise CorruptError(f"{self.cohort.member(end[0]).name} at step {end[1]}: {error}") from error
        return model.to(self.device).eval().requires_grad_(False)

    def key(self, pair: PairLabel) -> str:
        """SHA-256 of all that decides the rows of a pair, beside the study that they are of."""
        first, second = (self.digest_at(end) for end in pair.ends)
        return digest({"first": first, "second": second, **self.identity()})

    def identity(self) -> dict[str, Any]:
        """What decides the rows of every study beside the checkpoints."""
        options = {"probe": self.probe.identity(), "sites": self.sites, "task": self.cohort.identity["task"]}
        return {"blocks": BLOCKS, **options}

    def digest_at(self, end: End) -> str:
        """Of a checkpoint, with every fact that was published with it; `CorruptError` if it cannot be read."""
        return self._read(end)[0]

    def weights_digest(self, end: End) -> str:
        """Equal for two checkpoints that are one model, whoever's they are."""
        return self._read(end)[1]

    def readable(self, pairs: Iterable[PairLabel]) -> tuple[list[PairLabel], list[str]]:
        """The pairs whose checkpoints can be read, and why others cannot."""
        found, problems = [], []
        for pair in pairs:
            try:
                self.key(pair)
            except CorruptError as error:
                problems.append(str(error))
            else:
                found.append(pair)
        return found, problems

    def _read(self, end: End) -> tuple[str, str]:
        if end not in self._digests:
            there = self.cohort.member(end[0]).read_step(end[1])
            if there.reference is not None:  # what it refers to may be gone, or have changed
                self.load(*end)
            self._digests[end] = there.digest, there.weights_digest
        return self._digests[end]


def _model_bytes(model: HookedModel) -> int:
    return sum(values.nbytes for values in cast(nn.Module, model).state_dict().values())
