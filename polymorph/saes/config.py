"""How sparse autoencoders are trained. Architectures, their options and the schedules are SAELens'."""

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from polymorph.checks import at_least, nearest, one_of

if TYPE_CHECKING:
    import torch
    from sae_lens.config import SAETrainerConfig

SCHEDULERS = ("constant", "cosineannealing", "cosineannealingwarmrestarts")
TRAINED_VARIANTS = ("distinct", "shared", "again", "unrelated")
ESTIMATED = ("expected_average_only_in", "covariance_whitening")
"""Normalisations of activations that are estimated before training, and folded into the weights when it ends."""
SET_HERE = ("d_in", "d_sae", "device", "metadata", "dtype", "reshape_activations")
"""Options of an architecture that follow from the cohort, or that only one value of makes sense for."""
STACKABLE = ("standard", "topk", "gated")
"""Architectures whose training can be stacked; of the others SAELens' own trainer is called in a loop."""
PRECISIONS = ("auto", "float32", "bfloat16")
BY_TOKEN = ("constant_norm_rescale", "layer_norm")
"""Normalisations that every token has its own of; the loss that revives dead features does not undo them."""


@dataclass
class SAEOptimizerConfig:
    """Adam with one gradient norm of 1 a SAE, as SAELens has it."""

    lr: float = 3e-4
    """Learning rate of Adam."""
    lr_end: float | None = None
    """Where a schedule that falls ends; null is a tenth of `lr`."""
    lr_scheduler_name: str = "constant"
    """SAELens' name: `constant`, `cosineannealing` or `cosineannealingwarmrestarts`."""
    lr_warm_up_steps: int = 0
    """Steps over which it rises."""
    lr_decay_steps: int = 0
    """Steps at the end over which it falls to 0."""
    n_restart_cycles: int = 1
    """Of `cosineannealingwarmrestarts`."""
    adam_beta1: float = 0.9
    """Decay of the mean of the gradient."""
    adam_beta2: float = 0.999
    """Decay of the mean of its square."""

    def __post_init__(self) -> None:
        one_of("sae.optimizer.lr_scheduler_name", self.lr_scheduler_name, SCHEDULERS)
        at_least("sae.optimizer", self, lr_warm_up_steps=0, lr_decay_steps=0, n_restart_cycles=1)
        if self.lr <= 0:
            raise ValueError(f"sae.optimizer.lr={self.lr}: above 0")
        if self.lr_end is not None and self.lr_end < 0:
            raise ValueError(f"sae.optimizer.lr_end={self.lr_end}: at least 0, or null")
        for key in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"sae.optimizer.{key}={getattr(self, key)}: from 0 up to, not including, 1")


@dataclass
class SAEConfig:
    """The SAEs of all members and sites of a cohort, trained as one stack."""

    family: str = "standard_x8"
    """What they are called in the cohort; SAEs of one family differ in seed and data alone."""
    architecture: str = "standard"
    """SAELens' name: `standard`, `topk`, `gated`, `jumprelu`, `batchtopk`, …."""
    expansion: int = 8
    """Features by dimension of the activations."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of SAELens' training config of the architecture, such as `l1_coefficient` or `k`."""
    l1_per_dimension: float | None = None
    """The coefficient of L1 where the squared error is averaged over d; SAELens sums it. Replaces `l1_coefficient`."""
    unit_norm_decoder: bool = False
    """Scale the decoder's directions back to norm 1 after every step, as the paper does."""
    optimizer: SAEOptimizerConfig = field(default_factory=SAEOptimizerConfig)
    steps: int = 1500
    """Batches of each SAE."""
    batch_size: int = 4096
    """Tokens a step, for each SAE."""
    dead_feature_window: int = 1000
    """A feature that has not fired for so many steps is dead."""
    feature_sampling_window: int = 2000
    """Steps between two counts of how often features fire."""
    n_batches_for_norm_estimate: int = 100
    """For `options.normalize_activations`, where that estimates a scale or a covariance."""
    seed: int = 0
    """From which every SAE's own seed follows, together with its member and its site."""
    data_seed: int = 0
    """Of the documents, which are the same for all members, and which no member and no probe has met."""
    variants: list[Any] = field(default_factory=lambda: ["distinct"])
    """Which of `distinct`, `shared`, `again` and `unrelated` to train: see polymorph.saes.trained."""
    members: Any = "all"
    """`all`, or a list of seeds."""
    sites: Any = "all"
    """`all`, or a list of sites."""
    at: Any = "last"
    """At which checkpoints: `last`, `all`, or a list of steps."""
    online_steps: int = 200
    """Steps at each checkpoint with `callbacks.cross_seed.sae=online`."""
    attach: str | None = None
    """Instead of training: a SAELens folder that is taken into the cohort, for one each of members, sites and steps."""
    threads: int | None = None
    """Stacks that a CPU works on at once, a thread each; null is every core, at most 8. Changes no bit."""
    precision: str = "auto"
    """Of matrix products: `float32`, `bfloat16`, or `auto`, which is bfloat16 where the hardware has it and the
    gradients are known in closed form. Weights, losses and optimizer are float32 in any case."""
    compile: Any = "auto"
    """Whether the passes between the products are compiled (C++, on a CPU): true, false, or `auto`, which is where
    the training is long enough to gain from it and a compiler is there."""
    state_every: int | None = None
    """Steps between two states that a stopped training goes on from; null is a minute, or more where they are large."""
    log_every: int = 100
    """Steps between two rows of a training."""

    def __post_init__(self) -> None:
        at_least("sae", self, expansion=1, steps=1, batch_size=2, log_every=1, online_steps=1)
        at_least("sae", self, dead_feature_window=1, feature_sampling_window=1)
        at_least("sae", self, n_batches_for_norm_estimate=1)
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"sae.threads={self.threads}: at least 1, or null")
        if self.state_every is not None and self.state_every < 1:
            raise ValueError(f"sae.state_every={self.state_every}: at least 1, or null")
        one_of("sae.precision", self.precision, PRECISIONS)
        if self.compile not in ("auto", True, False):
            raise ValueError(f"sae.compile={self.compile}: auto, true or false")
        self._check_options()
        self._check_schedule()
        if not self.variants or len(set(self.variants)) < len(self.variants):
            raise ValueError(f"sae.variants={self.variants}: different ones, at least one")
        for variant in self.variants:
            one_of("sae.variants", variant, TRAINED_VARIANTS)
        for key in ("seed", "data_seed"):
            if not 0 <= getattr(self, key) < 2**32:
                raise ValueError(f"sae.{key}={getattr(self, key)}: from 0 to 2^32 - 1")

    def _check_options(self) -> None:
        """Against SAELens, which takes seconds to import: not where all is as it comes."""
        if self.architecture == "standard" and not self.options:
            return
        from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

        one_of("sae.architecture", self.architecture, tuple(SAE_TRAINING_CLASS_REGISTRY))
        known = [f.name for f in fields(SAE_TRAINING_CLASS_REGISTRY[self.architecture][1])]
        for key in self.options:
            if key in SET_HERE:
                raise ValueError(f"sae.options.{key}: it follows from the cohort and cannot be set")
            if key not in known:
                raise ValueError(
                    f"sae.options.{key}: {self.architecture} has no such option{nearest(key, known)}"
                )
        if self.l1_per_dimension is not None and "l1_coefficient" not in known:
            raise ValueError(f"sae.l1_per_dimension: {self.architecture} has no l1_coefficient")
        if self.options.get("use_sparse_activations"):
            raise ValueError(
                "sae.options.use_sparse_activations: sparse tensors cannot be stacked; leave it off"
            )

        if "topk" in self.architecture and self.options.get("normalize_activations") in BY_TOKEN:
            raise ValueError(
                f"sae.options.normalize_activations={self.options['normalize_activations']}: "
                f"{self.architecture} cannot revive dead features with it"
            )

    def _check_schedule(self) -> None:
        own = self.optimizer
        if own.lr_scheduler_name == "constant":
            return
        least = own.n_restart_cycles if own.lr_scheduler_name == "cosineannealingwarmrestarts" else 1
        if self.steps - own.lr_warm_up_steps - own.lr_decay_steps < least:
            raise ValueError(
                f"sae.steps={self.steps}: at least {least} beside sae.optimizer.lr_warm_up_steps="
                f"{own.lr_warm_up_steps} and sae.optimizer.lr_decay_steps={own.lr_decay_steps}"
            )
        if own.lr_decay_steps and own.lr_end == 0:
            raise ValueError("sae.optimizer.lr_end=0.0: above 0 where sae.optimizer.lr_decay_steps follow")

    def has_closed_form(self) -> bool:
        """Whether `polymorph.saes.closed` has the gradients; else they are SAELens' own, by autograd."""
        by_token = self.options.get("normalize_activations") in BY_TOKEN
        return self.architecture in STACKABLE and not by_token and self.options.get("lp_norm", 1) == 1

    def resolved(self, device: "torch.device") -> "SAEConfig":
        """The same with the precision that it means on this device."""
        from polymorph.training.numerics import resolve_precision

        if self.precision == "auto" and not self.has_closed_form():
            return replace(self, precision="float32")
        return replace(self, precision=resolve_precision(self.precision, device))

    def deciding(self) -> dict[str, Any]:
        """All that decides the weights of a SAE, apart from its member, its site, its step and its seed.

        The precision is that of `resolved`.
        """
        own = ("architecture", "expansion", "l1_per_dimension", "unit_norm_decoder", "steps", "batch_size")
        more = ("dead_feature_window", "n_batches_for_norm_estimate", "data_seed", "precision")
        return {
            **{key: getattr(self, key) for key in own + more},
            "options": dict(self.options),
            "optimizer": dict(vars(self.optimizer)),
        }

    def trainer(self, device: str) -> "SAETrainerConfig":
        """The same as SAELens' own trainer is told it."""
        from sae_lens.config import SAETrainerConfig

        optimizer = dict(vars(self.optimizer))
        optimizer["lr_end"] = (
            self.optimizer.lr / 10 if self.optimizer.lr_end is None else self.optimizer.lr_end
        )
        return SAETrainerConfig(
            total_training_samples=self.steps * self.batch_size,
            train_batch_size_samples=self.batch_size,
            dead_feature_window=self.dead_feature_window,
            feature_sampling_window=self.feature_sampling_window,
            n_batches_for_norm_estimate=self.n_batches_for_norm_estimate,
            device=device,
            autocast=self.precision == "bfloat16",
            **optimizer,
        )
