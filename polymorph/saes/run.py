"""Train the SAEs of a cohort: every member, site and variant of one checkpoint as one stack."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from sae_lens import TrainingSAE

from polymorph.errors import RequestError, RunError
from polymorph.progress import SILENT, Progress
from polymorph.saes.build import sae_seed, training_sae
from polymorph.saes.config import STACKABLE, SAEConfig
from polymorph.saes.fitting import Keep, Log, StepBar, Stop, fit
from polymorph.saes.inputs import Inputs, Stream
from polymorph.saes.module import SAEModule
from polymorph.saes.places import End, Place
from polymorph.saes.stored import StoredDictionaries, family_and_variant, publish, sae_name
from polymorph.saes.trained import TrainedSAE
from polymorph.saes.trainers import Trainer, passes_of, trainer_of, training_bytes
from polymorph.saes.unfinished import Kept, UnfinishedSAEs, numerics_here
from polymorph.store import Cohort, CorruptError, Member
from polymorph.store.canonical_json import plain
from polymorph.store.differences import side_by_side

STOPPED = "sae stopped"


@dataclass
class SAETraining:
    """All that decides how SAEs are trained, and where they go.

    `stream` opens the activations of members at checkpoints, `sites` are all that the model has, in order.
    """

    cohort: Cohort
    config: SAEConfig
    sites: Sequence[str]
    d: int
    stream: Callable[[Sequence[End], Sequence[str]], Stream]
    device: torch.device
    loggers: Mapping[int, Logger] = field(default_factory=dict)
    progress: Progress = SILENT
    stopped: Callable[[], bool] = lambda: False
    listen: Callable[[], None] = lambda: None
    """Called when Lightning has put its own signal handlers over those that `stopped` waits for."""
    say: Callable[[str], None] = print
    announced: bool = True
    """Whether to say what is done, and not only what goes wrong."""

    def __post_init__(self) -> None:
        self.config = self.config.resolved(self.device)

    def check(self, places: Sequence[Place]) -> None:
        """`RequestError` if one of the family is there that was trained with other options, whoever's it is.

        Neither may one that is unfinished go on under other numerics than its own.
        """
        for place in places:
            ours = self._facts(place)
            with contextlib.suppress(CorruptError):
                self._is_published(place, ours)
        variants = {place.variant for place in places}
        ours = {"training": self._training_facts()}
        for member in self.cohort.members():
            for step, site, name in member.saes():
                family, variant = family_and_variant(name)
                if family == self.config.family and variant in variants:
                    with contextlib.suppress(CorruptError):
                        self._is_published(Place(member.seed, step, site, variant), ours)
        for stack in self._stacks([place for place in places if not self.holds(place)]):
            replace(self._unfinished(stack), say=lambda _: None).find(stack)

    def run(self, places: Sequence[Place]) -> int:
        """Train those that are not there yet, a stack for every step; how many were published."""
        self.check(places)
        for seed in sorted({place.seed for place in places}):
            self.cohort.member(seed).sweep()
        self._unfinished().sweep()
        missing = [place for place in places if not self._is_there(place)]
        if self.announced and len(missing) < len(places):
            self.say(f"{len(places) - len(missing)} of {len(places)} SAEs of {self.config.family} are there")
        published = 0
        for stack in self._stacks(missing):
            if not self.stopped():
                published += self._train(stack)
        self._unfinished().remove(self.holds)
        return published

    def _stacks(self, places: Sequence[Place]) -> list[list[Place]]:
        """What is trained at once."""
        if self.config.at == "last":  # at whatever step that is for each member
            return [list(places)] if places else []
        steps = sorted({place.step for place in places})
        return [[place for place in places if place.step == step] for step in steps]

    def _is_there(self, place: Place) -> bool:
        """Whether it is published whole; `RequestError` if it was trained with other options."""
        ours = self._facts(place)  # first, since a checkpoint that is damaged is no reason to train on it
        try:
            return self._is_published(place, ours)
        except CorruptError as error:
            self.say(f"trained again: {error}")
            return False

    def holds(self, place: Place) -> bool:
        """Whether there is something in its place, whole or not."""
        name = sae_name(self.config.family, place.variant)
        return self.cohort.member(place.seed).has_sae(place.step, place.site, name)

    def _is_published(self, place: Place, ours: Mapping[str, Any]) -> bool:
        """`RequestError` for one that was trained with other options, `CorruptError` for a damaged one."""
        if not self.holds(place):
            return False
        member, name = self.cohort.member(place.seed), sae_name(self.config.family, place.variant)
        facts = member.read_sae(place.step, place.site, name).manifest.facts
        there = {key: facts.get(key) for key in ours}
        if isinstance(training := there.get("training"), dict):  # before there was a choice, it was float32
            there["training"] = {"precision": "float32", **training}
        if there != plain(ours):
            raise RequestError(
                f"sae.family={self.config.family}: {member.sae_path(place.step, place.site, name)} was trained "
                f"with other options: {side_by_side(there, ours)}; give another sae.family"
            )
        return True

    def _facts(self, place: Place) -> dict[str, Any]:
        checkpoint = self.cohort.member(place.seed).read_step(place.step).digest
        return {"training": self._training_facts(), "checkpoint": checkpoint}

    def _training_facts(self) -> dict[str, Any]:
        return {**self.config.deciding(), "seed": self.config.seed}

    def _train(self, places: Sequence[Place]) -> int:
        unfinished = self._unfinished(places)
        kept = unfinished.find(places)
        unfinished.make_room(places, kept)
        trainer = trainer_of([self._sae(place) for place in places], self.config, self.device)
        if self.announced:
            self._announce(places, kept)
        inputs = Inputs(places, self._open(places), self.config.data_seed)
        if kept is None:
            # The norms are estimated on batches that no training step has.
            trainer.prepare(inputs.batch(self.config.steps + i) for i in range(2**31))
        else:
            trainer.restore(kept.states, kept.step)
        module = self._module(places, trainer, inputs, 0 if kept is None else kept.step)

        def keep(step: int) -> None:
            try:
                unfinished.publish(places, step, trainer.state())
            except RunError as error:  # the training itself is none the worse
                self.say(f"the state after step {step} is not kept: {error}")

        keeper = Keep(keep, self.config.state_every)
        fit(module, self.device, [Stop(self.stopped, self.listen), keeper, StepBar(self.progress)])
        if module.step < self.config.steps:
            self._note_stop(places, module.step)
            return 0
        return self._publish(places, trainer)

    def _module(self, places: Sequence[Place], trainer: Trainer, inputs: Inputs, step: int) -> SAEModule:
        followed = self.config.at != "last" or any(place.variant == "online" for place in places)
        log = Log(self.cohort, places, self.config.family, self.loggers, followed)
        return SAEModule(trainer, inputs.batch, self.config.steps, self.config.log_every, log, step)

    def _note_stop(self, places: Sequence[Place], step: int) -> None:
        self.say(f"stopped after {step} of {self.config.steps} steps; the same request goes on from there")
        for seed in sorted({place.seed for place in places}):
            row = {"kind": STOPPED, "step": step, "family": self.config.family}
            self.cohort.member(seed).append_row(row)

    def _unfinished(self, places: Sequence[Place] = ()) -> UnfinishedSAEs:
        """What is kept of trainings of this family that were stopped; `places` are those that would go on."""
        here: dict[str, Any] = {}
        if places:
            compiled = passes_of(self.config, self.config.expansion * self.d, self.device) is not None
            here = numerics_here(self.device, self.config.precision, compiled, len(places))
        return UnfinishedSAEs(self.cohort, self.config.family, self._facts, here, self.say)

    def _open(self, places: Sequence[Place]) -> Stream:
        ends = sorted({(place.seed, place.step) for place in places})
        return self.stream(ends, [site for site in self.sites if any(place.site == site for place in places)])

    def _sae(self, place: Place) -> TrainingSAE[Any]:
        seed = sae_seed(self.config.seed, place.seed, self.sites.index(place.site), place.variant)
        about = {"hook_name": place.site, "model_name": f"{self.cohort.name}/seed-{place.seed:04d}"}
        sae = training_sae(self.config, self.d, seed, {**about, "polymorph_step": place.step})
        if place.variant == "online" and (before := self._before(place)) is not None:
            sae.load_state_dict(before.sae.state_dict())
        return sae

    def _before(self, place: Place) -> TrainedSAE | None:
        """The same SAE at the member's previous checkpoint that has one."""
        there = StoredDictionaries(self.cohort)
        family, variant = self.config.family, place.variant
        steps = there.steps(place.seed, place.site, family, variant)
        earlier = [step for step in steps if step < place.step]
        return there.read(place.seed, earlier[-1], place.site, family, variant) if earlier else None

    def _announce(self, places: Sequence[Place], kept: Kept | None) -> None:
        how = "as one stack" if self.config.architecture in STACKABLE else "one after another in each step"
        steps = ", ".join(str(step) for step in sorted({place.step for place in places}))
        count = f"{len(places)} SAE{'s' if len(places) > 1 else ''}"
        on = "" if kept is None else f": goes on after step {kept.step}"
        self.say(f"training {count} of {self.config.family} at step {steps}, {how}{on}")

    def _publish(self, places: Sequence[Place], trainer: Trainer) -> int:
        published = 0
        for place, sae in zip(places, trainer.finish(), strict=True):
            seed = int(sae.cfg.metadata.sae_seed)
            trained = TrainedSAE(sae, self.config.family, place.variant, seed, facts=self._facts(place))
            try:
                publish(self.cohort.member(place.seed), place.step, place.site, trained)
                published += 1
            except RunError as error:  # such as weights that are not finite; the others are none the worse
                self.say(f"seed {place.seed} at {place.site}: not kept: {error}")
        return published

    def check_memory(self, places: Sequence[Place], limit_bytes: int) -> None:
        """`RequestError` if training those that are not there takes more than that."""
        stacks = self._stacks([place for place in places if not self.holds(place)])
        check_memory(self.config, max(map(len, stacks), default=0), self.d, self.device, limit_bytes)


def check_memory(config: SAEConfig, saes: int, d: int, device: torch.device, limit_bytes: int) -> None:
    """`RequestError` if training so many SAEs at once takes more than that."""
    if (needed := training_bytes(saes, d, config, device)) > limit_bytes:
        raise RequestError(
            f"sae.expansion={config.expansion}, sae.batch_size={config.batch_size}: {saes} SAEs of "
            f"{d} → {d * config.expansion} features need about {needed / 2**30:.1f} GiB, and "
            f"{limit_bytes / 2**30:.1f} GiB are there; train fewer at once with sae.members=[…] or sae.sites=[…]"
        )


def was_stopped(member: Member) -> bool:
    """Whether the last that its log says is that the training of its SAEs was asked to stop."""
    rows = member.rows()
    return bool(rows) and rows[-1].get("kind") == STOPPED
