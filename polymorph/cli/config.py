"""Every dataclass that stands behind the YAML, gathered; the door at which a request becomes typed."""

from collections.abc import Sequence
from copy import copy
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from polymorph.checks import one_of
from polymorph.errors import RequestError
from polymorph.evidence.pairs import SCHEMES
from polymorph.evidence.planted_config import PlantedConfig
from polymorph.models.registry import TRAINED
from polymorph.papers import FIGURES, LEDGERS
from polymorph.pipeline.config import CrossSeedConfig
from polymorph.saes.config import SAEConfig
from polymorph.store import check_name, digest
from polymorph.studies.registry import STUDIES
from polymorph.studies.study import Options
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.registry import TASKS, task_identity
from polymorph.tracking.config import LoggerConfig
from polymorph.training.config import (
    ACCELERATORS,
    CheckpointsConfig,
    OptimizerConfig,
    SharedIO,
    TrainerConfig,
)

STAGES = ("text", "model", "sae", "all", "import")
DASHBOARDS = ("write", "push")
COHORT_KINDS = ("independent", "shared_io", "pretrained")
LARGEST_SEED = 2**32 - 1  # a seed is one word of the data generator's key


@dataclass
class CohortConfig:
    """Which cohort the members belong to, and what they share."""

    kind: str = "independent"
    """`independent`, `shared_io` or `pretrained`; chosen as `cohort=…`."""
    name: str = "cohort"
    """The cohort's folder below `root`."""
    root: str = "cohorts"
    """The folder of all cohorts."""
    donor: int | None = None
    """`shared_io`: the member whose embedding and unembeddings the others take and freeze."""
    freeze_final_gain: bool = False
    """`shared_io`: freeze the gain of the final norm too, which the paper leaves free."""
    models: list[Any] = field(default_factory=list)
    """`pretrained`: what is imported, each `repository@revision`, or `{seed: 1, repository: …, revisions: […]}`; a
    repository is one of the hub, or a folder."""
    allow_pickle: bool = False
    """`pretrained`: read weights that are there as a pickle alone, by torch's restricted reader."""

    def __post_init__(self) -> None:
        one_of("cohort.kind", self.kind, COHORT_KINDS)
        if (self.donor is None) == (self.kind == "shared_io"):
            raise ValueError(f"cohort.donor={self.donor}: a seed for shared_io, null for {self.kind}")
        if self.models and self.kind != "pretrained":
            raise ValueError(f"cohort.models: of a pretrained cohort, not of cohort.kind={self.kind}")
        try:
            check_name(self.name)
        except RequestError as error:
            raise ValueError(str(error)) from error

    @property
    def folder(self) -> Path:
        return Path(self.root) / self.name


@dataclass
class CallbacksConfig:
    """What watches the training."""

    cross_seed: CrossSeedConfig = field(default_factory=CrossSeedConfig)


@dataclass
class TrainConfig:
    """One call of `train.py`."""

    seed: Any = 0
    """A whole number from 0 on, or a list of different ones, which are then trained as one stack."""
    stage: str = "model"
    """`model`, `sae` (for members that are there, see `sae.members`), or `all`: both, for `seed`; `text` prepares
    the text of `task=text` alone, `import` takes in the models of `cohort.models`."""
    preset: str = "custom"
    """The name of the experiment; part of the default name of the cohort."""
    task: Any = MISSING
    """Of one of the groups in conf/task, which bring their own dataclass; so does `model`."""
    model: Any = MISSING
    cohort: CohortConfig = field(default_factory=CohortConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    sae: SAEConfig = field(default_factory=SAEConfig)

    def __post_init__(self) -> None:
        one_of("stage", self.stage, STAGES)
        seeds_of(self.seed)
        if self.stage in ("model", "all") and self.cohort.kind == "pretrained":
            raise ValueError(
                f"stage={self.stage}: a pretrained cohort is not trained here; take it in with stage=import"
            )
        if self.stage == "text" and not hasattr(self.task, "tokenizer"):
            raise ValueError(f"stage=text: task={self.task.name} has no text to prepare")
        if self.stage in ("text", "model", "all") and getattr(self.task, "tokenizer", None) == "model":
            raise ValueError(
                "task.tokenizer=model: that of imported models, with stage=import; give another here"
            )
        if self.stage in ("model", "all"):
            self.model.check_task(self.task)

    @property
    def seeds(self) -> list[int]:
        return seeds_of(self.seed)

    def identity(self) -> dict[str, Any]:
        """What all members of the cohort share."""
        architecture, task = asdict(self.model), task_identity(self.task, self.cohort.folder)
        return {"architecture": architecture, "task": task, "probe": self.probe.identity()}

    def member_config(self, seed: int) -> dict[str, Any]:
        """All that decides one member up to rounding, and nothing that does not."""
        trainer, shared = asdict(self.trainer), {"kind": self.cohort.kind}
        for key in _NOT_DECIDING:
            del trainer[key]
        if self.shared_io is not None and seed != self.shared_io.donor:
            shared |= asdict(self.shared_io)
        return {
            "seed": seed,
            "task": task_identity(self.task, self.cohort.folder),
            "model": asdict(self.model),
            "cohort": shared,
            "optimizer": asdict(self.optimizer),
            "trainer": trainer,
            "checkpoints": self._cadence(),
        }

    def _cadence(self) -> dict[str, Any]:
        checkpoints = self.checkpoints
        # Not where it is empty: the members of earlier versions have no such key and are the same.
        also = {"also": sorted(checkpoints.also)} if checkpoints.also else {}
        return {"powers_until": checkpoints.powers_until, "every": checkpoints.every, **also}

    def member_digest(self, seed: int) -> str:
        return digest(self.member_config(seed))

    @property
    def shared_io(self) -> SharedIO | None:
        if self.cohort.donor is None:
            return None
        return SharedIO(self.cohort.donor, self.cohort.freeze_final_gain)


_NOT_DECIDING = (
    *("accelerator", "threads", "compile", "length_groups", "steps_at_once"),
    *("log_every", "allow_other_numerics", "progress"),
)


def seeds_of(seed: Any) -> list[int]:
    """The seeds of a request; `ValueError` unless they are different whole numbers from 0 on."""
    seeds = list(seed) if isinstance(seed, list | tuple) else [seed]
    right = "a whole number from 0 on, or a list of different ones such as [0,1,2]"
    if not seeds:
        raise ValueError(f"seed=[]: no seed is given; {right}")
    for value in seeds:
        if type(value) is not int or not 0 <= value <= LARGEST_SEED:
            raise ValueError(f"seed={seed!r}: {value!r} is not {right}")
    if repeated := sorted({value for value in seeds if seeds.count(value) > 1}):
        raise ValueError(f"seed={seed!r}: {repeated[0]} is repeated; {right}")
    return seeds


@dataclass
class AnalyzeConfig:
    """One call of `analyze.py`."""

    cohort: str = MISSING
    """A cohort's name below `root`, or its folder."""
    root: str = "cohorts"
    """The folder of all cohorts."""
    study: Any = "all"
    """A list of studies, or `all` that apply."""
    step: Any = "all"
    """`all`, `last`, or a list of steps: at which checkpoints members are compared."""
    seeds: Any = "all"
    """`all`, or a list of seeds."""
    pairs: str = "all"
    """`all`, each member with the first (`anchor`), or each with the next (`chain`)."""
    memory_gib: float = 8.0
    """For the moments of all pairs at the last step; what needs more is refused with its size."""
    planted: PlantedConfig = field(default_factory=PlantedConfig)
    """How `cohort=planted:<kind>` is made."""
    port: Any = None
    """Instead of an analysis: an SAE that is made to work on another member, as
    `port={source:0,target:1,site:blocks.0.hook_resid_post,sae:standard_x8,map:orthogonal}`."""
    ledger: str | None = None
    """`paper`: every numeric claim of the paper held against the results; `ledger.html` and `ledger.json`."""
    figures: str | None = None
    """`paper`: four figures for print, PDF of one and of two columns, and those of the page, in the folder `paper`."""
    name: str = "default"
    """The folder of the results below `analysis/`."""
    every_checkpoint: bool = False
    """For the dashboard: whether pairing tests and steering regimes are made in brief at every checkpoint that is
    analysed, where training has not made them; some seconds a pair and checkpoint."""
    dashboard: str | None = None
    """Instead of an analysis: `write` the W&B workspace as JSON into the cohort's folder, or `push` it as well."""
    accelerator: str = "auto"
    """`auto`, `cpu` or `gpu`."""
    threads: int | None = None
    """CPU threads of PyTorch; null is as many as pay for the width of the members."""
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        one_of("accelerator", self.accelerator, ACCELERATORS)
        one_of("pairs", self.pairs, SCHEMES)
        for key, value, known in (("ledger", self.ledger, LEDGERS), ("figures", self.figures, FIGURES)):
            if value is not None:
                one_of(key, value, known)
        if self.dashboard is not None:
            one_of("dashboard", self.dashboard, DASHBOARDS)
        if self.memory_gib <= 0:
            raise ValueError(f"memory_gib={self.memory_gib}: above 0")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads={self.threads}: at least 1, or null")
        try:
            check_name(self.name, "name")
        except RequestError as error:
            raise ValueError(str(error)) from error

    @property
    def options(self) -> dict[str, Options]:
        """Study → what is asked of it, of those that have options."""
        kinds = {name: study.options for name, study in STUDIES.items() if study.options is not None}
        return {
            name: kind(**{key.name: getattr(self, key.name) for key in keys_of(kind)})
            for name, kind in kinds.items()
        }


def keys_of(options: type[Options]) -> Sequence[Field[Any]]:
    assert is_dataclass(options)
    return fields(options)


def analyze_schema() -> type[AnalyzeConfig]:
    """`AnalyzeConfig` with the keys of every study's options; `ValueError` where two have one key."""
    parts = {name: study.options for name, study in STUDIES.items() if study.options is not None}
    keys = {part.name: part for part in fields(AnalyzeConfig)}
    for name, options in parts.items():
        for key in keys_of(options):
            if key.name in keys:
                raise ValueError(f"study {name}: analyze.py has a key {key.name} already")
            keys[key.name] = key
    own = [(key.name, key.type, copy(key)) for options in parts.values() for key in keys_of(options)]
    more = {"PARTS": tuple(parts.values()), "__doc__": AnalyzeConfig.__doc__}
    return make_dataclass("AnalyzeConfig", own, bases=(AnalyzeConfig,), namespace=more)


def register() -> None:
    """Give Hydra the schemas behind `conf/train.yaml` and `conf/analyze.yaml`."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    for name, kind in TASKS.items():
        store.store(group="schemas/task", name=name, node=kind.config)
    for name, node in TRAINED.items():
        store.store(group="schemas/model", name=name, node=node)
    store.store(name="analyze_schema", node=analyze_schema())
