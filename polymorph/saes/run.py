"""Train the SAEs of a cohort: every member, site and variant of one checkpoint as one stack."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from sae_lens import TrainingSAE

from polymorph.cohort import Cohort, CorruptError, Member
from polymorph.cohort.differences import side_by_side
from polymorph.cohort.plain import plain
from polymorph.errors import RequestError, RunError
from polymorph.progress import SILENT, Bar, Progress
from polymorph.saes.build import sae_seed, training_sae
from polymorph.saes.config import STACKABLE, SAEConfig
from polymorph.saes.inputs import Inputs, Stream
from polymorph.saes.module import Measured, SAEModule, make_trainer, progress_text
from polymorph.saes.places import End, Place
from polymorph.saes.stored import StoredDictionaries, family_and_variant, publish, sae_name
from polymorph.saes.trained import TrainedSAE
from polymorph.saes.trainers import Trainer, trainer_of, training_bytes

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
        """`RequestError` if one of the family is there that was trained with other options, whoever's it is."""
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

    def run(self, places: Sequence[Place]) -> int:
        """Train those that are not there yet, a stack for every step; how many were published."""
        self.check(places)
        for seed in sorted({place.seed for place in places}):
            self.cohort.member(seed).sweep()
        missing = [place for place in places if not self._is_there(place)]
        if self.announced and len(missing) < len(places):
            self.say(f"{len(places) - len(missing)} of {len(places)} SAEs of {self.config.family} are there")
        published = 0
        for stack in self._stacks(missing):
            if not self.stopped():
                published += self._train(stack)
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

    def _holds(self, place: Place) -> bool:
        """Whether there is something in its place, whole or not."""
        name = sae_name(self.config.family, place.variant)
        return self.cohort.member(place.seed).has_sae(place.step, place.site, name)

    def _is_published(self, place: Place, ours: Mapping[str, Any]) -> bool:
        """`RequestError` for one that was trained with other options, `CorruptError` for a damaged one."""
        if not self._holds(place):
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
        trainer = trainer_of([self._sae(place) for place in places], self.config, self.device)
        if self.announced:
            self._announce(places)
        inputs = Inputs(places, self._open(places), self.config.data_seed)
        # The norms are estimated on batches that no training step has.
        trainer.prepare(inputs.batch(self.config.steps + i) for i in range(2**31))
        followed = self.config.at != "last" or any(place.variant == "online" for place in places)
        log = Log(self.cohort, places, self.config.family, self.loggers, followed)
        module = SAEModule(trainer, inputs.batch, self.config.steps, self.config.log_every, log)
        fit(module, self.device, [_Stop(self.stopped, self.listen), _Bar(self.progress)])
        if module.step < self.config.steps:
            self.say(f"stopped after {module.step} of {self.config.steps} steps; nothing of it is kept")
            for seed in sorted({place.seed for place in places}):
                row = {"kind": STOPPED, "step": module.step, "family": self.config.family}
                self.cohort.member(seed).append_row(row)
            return 0
        return self._publish(places, trainer)

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

    def _announce(self, places: Sequence[Place]) -> None:
        how = "as one stack" if self.config.architecture in STACKABLE else "one after another in each step"
        steps = ", ".join(str(step) for step in sorted({place.step for place in places}))
        count = f"{len(places)} SAE{'s' if len(places) > 1 else ''}"
        self.say(f"training {count} of {self.config.family} at step {steps}, {how}")

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
        stacks = self._stacks([place for place in places if not self._holds(place)])
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


@dataclass
class Log:
    """Every SAE's numbers to the log of its member, and to the member's loggers."""

    cohort: Cohort
    places: Sequence[Place]
    family: str
    loggers: Mapping[int, Logger]
    by_checkpoint: bool = False
    """Whether other checkpoints of the same members follow or went before."""

    def __call__(self, step: int, measured: Measured) -> None:
        by_name = {name: values.tolist() for name, values in measured.items()}
        for seed in sorted({place.seed for place in self.places}):
            own = dict(self._of_member(seed, by_name))
            at = sorted({place.step for place in self.places if place.seed == seed})
            self.cohort.member(seed).append_row({"kind": "sae", "step": step, "checkpoints": at, **own})
            if (logger := self.loggers.get(seed)) is not None:
                logger.log_metrics(own, step)

    def _of_member(self, seed: int, values: Mapping[str, list[float]]) -> Iterator[tuple[str, float]]:
        """`sae/<name>/<site>/<metric>`; of several checkpoints, with the checkpoint before the site."""
        for index, place in enumerate(self.places):
            if place.seed == seed:
                at = f"step-{place.step}/" if self.by_checkpoint else ""
                where = f"sae/{sae_name(self.family, place.variant)}/{at}{place.site}"
                yield from ((f"{where}/{name}", own[index]) for name, own in values.items())


def fit(module: SAEModule, device: torch.device, callbacks: list[L.Callback]) -> None:
    """Run the module to its last step."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    # Lightning's greetings and its advice are not about this.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message="There is a performance drop")  # TopK's scatter under vmap
        make_trainer(callbacks, accelerator=accelerator, enable_progress_bar=False).fit(module)


@dataclass
class _Stop(L.Callback):
    stopped: Callable[[], bool]
    listen: Callable[[], None]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.listen()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or self.stopped()


class _Bar(L.Callback):
    """Steps, with means over SAEs."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self._open, self._bar = progress, contextlib.ExitStack(), Bar()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SAEModule)
        self._bar = self._open.enter_context(self.progress.bar("SAEs", pl_module.steps, pl_module.step))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SAEModule)
        measured = pl_module.step % pl_module.log_every == 0 or pl_module.step == pl_module.steps
        if measured or pl_module.step % 10 == 0:
            self._bar.update(pl_module.step, **(progress_text(pl_module.latest) if measured else {}))

    def on_train_end(self, *_: Any) -> None:
        self._open.close()

    def on_exception(self, *_: Any) -> None:
        self._open.close()
