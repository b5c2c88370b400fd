"""How members are trained; the defaults are the paper's."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polymorph.checks import at_least, one_of

if TYPE_CHECKING:
    from polymorph.models.architecture import Trainable

ACCELERATORS = ("auto", "cpu", "gpu")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass
class OptimizerConfig:
    """AdamW on everything that is not frozen, one gradient norm a member."""

    lr: float = 3e-3
    """Peak learning rate."""
    beta1: float = 0.9
    """Decay of the mean of the gradient."""
    beta2: float = 0.95
    """Decay of the mean of its square."""
    weight_decay: float = 1e-4
    """Of AdamW, on every parameter."""
    gradient_clip: float = 1.0
    """Largest gradient norm of a member; each member is clipped by its own."""
    warmup_steps: int = 500
    """The learning rate rises linearly for so many steps."""
    final_lr_ratio: float = 0.02
    """The cosine ends at this share of the peak."""

    def __post_init__(self) -> None:
        at_least("optimizer", self, lr=0.0, weight_decay=0.0, warmup_steps=0, final_lr_ratio=0.0)
        if self.gradient_clip <= 0:
            raise ValueError(f"optimizer.gradient_clip={self.gradient_clip}: above 0")
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"optimizer.{key}={getattr(self, key)}: from 0 up to, not including, 1")


@dataclass
class CheckpointsConfig:
    """When a checkpoint is published: 0, 1, 2, 4, … up to `powers_until`, every `every` steps, `also`, and last."""

    powers_until: int = 1024
    """Steps 1, 2, 4, … are kept up to here."""
    every: int = 2000
    """And every so many steps after."""
    also: list[int] = field(default_factory=list)
    """Further steps at which a checkpoint is published, such as `[1000]`."""
    keep_states: int = 2
    """How many states for resuming a member keeps."""

    def __post_init__(self) -> None:
        at_least("checkpoints", self, powers_until=0, every=1, keep_states=1)
        for step in self.also:
            if step < 1:
                raise ValueError(
                    f"checkpoints.also={self.also}: {step} is not a step; whole numbers from 1 on"
                )
        if len(set(self.also)) < len(self.also):
            raise ValueError(f"checkpoints.also={self.also}: a step is repeated")


@dataclass
class ConvergenceConfig:
    """When a member may stop early."""

    accuracy: float = 0.9999
    """Converged once the least accuracy over heads and evaluation distributions reaches this."""
    patience: int = 10_000
    """Steps that a converged member goes on for."""

    def __post_init__(self) -> None:
        at_least("trainer.convergence", self, patience=0)


@dataclass
class TrainerConfig:
    """Length, cost and place of the training."""

    max_steps: int = 60_000
    """Steps of a member, if it does not converge before."""
    batch_size: int = 512
    """Sequences a step, for each member."""
    accelerator: str = "auto"
    """`auto`, `cpu` or `gpu`."""
    precision: str = "auto"
    """Of products and attention: `float32`, `bfloat16`, or `auto`, which is bfloat16 on an accelerator and on a CPU
    that has it in hardware. The residual stream, sums inside norms, losses and the optimizer are float32."""
    threads: int | None = None
    """CPU threads of PyTorch; null is every core, at most 8. The number decides the last bits of weights."""
    compile: Any = "auto"
    """Compile the step with torch.compile: `true`, `false`, or `auto`, where a training is long enough to gain by it.
    On a CPU that takes a C++ compiler, half a minute once, and a few seconds when it is in the cache."""
    length_groups: int | None = None
    """Groups of equal length that attention works on; null is 16 on a CPU and 4 on an accelerator."""
    steps_at_once: int = 8
    """Batches that are generated together; changes speed and nothing else."""
    log_every: int = 100
    """Steps between two rows of the training loss."""
    eval_every: int = 500
    """Steps between two evaluations."""
    eval_sequences: int = 2048
    """Sequences of each evaluation distribution."""
    convergence: ConvergenceConfig = field(default_factory=ConvergenceConfig)
    allow_other_numerics: bool = False
    """Resume on another device, thread count or version, which gives other bits; the member is marked."""
    progress: bool = True
    """Show a bar, where the output is a terminal."""

    def __post_init__(self) -> None:
        one_of("trainer.accelerator", self.accelerator, ACCELERATORS)
        one_of("trainer.precision", self.precision, PRECISIONS)
        if self.compile not in (True, False, "auto"):
            raise ValueError(f"trainer.compile={self.compile}: true, false or auto")
        at_least("trainer", self, max_steps=1, batch_size=1, steps_at_once=1)
        at_least("trainer", self, log_every=1, eval_every=1, eval_sequences=1)
        for key in ("threads", "length_groups"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ValueError(f"trainer.{key}={getattr(self, key)}: at least 1, or null")


@dataclass
class SharedIO:
    """Members take the donor's trained embedding and unembeddings, and never change them."""

    donor: int
    freeze_final_gain: bool = False

    def parameters(self, model: "Trainable") -> tuple[str, ...]:
        return (*model.io_parameters, *(model.final_gain if self.freeze_final_gain else ()))
