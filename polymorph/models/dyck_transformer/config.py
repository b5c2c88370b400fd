"""The paper's transformer for Dyck-3 as a request states it; torch is imported when a model is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polymorph.models.sites import site_names
from polymorph.tasks.dyck.config import DyckConfig

if TYPE_CHECKING:
    from polymorph.models.architecture import Weights
    from polymorph.models.dyck_transformer.model import DyckTransformer
    from polymorph.models.symmetries import Symmetries

IO_PARAMETERS = ("W_E", "unembed.tok.W_U", "unembed.depth.W_U", "unembed.valid.W_U")
FINAL_GAIN = "ln_final.w"


@dataclass
class DyckTransformerConfig:
    """Architecture; the defaults are the paper's."""

    name: str = "dyck_transformer"
    """Chosen as `model=dyck_transformer`."""
    n_layers: int = 2
    """Blocks."""
    d_model: int = 64
    """Width of the residual stream."""
    n_heads: int = 4
    """Heads of a block."""
    d_head: int = 16
    """Width of a head."""
    d_mlp: int = 256
    """Neurons of a block."""
    d_vocab: int = 40
    """Tokens, used or not."""
    n_ctx: int = 64
    """Tokens that a sequence may have."""
    n_depth: int = 9
    """Classes of the head `depth`."""
    n_valid: int = 2
    """Classes of the head `valid`."""
    eps: float = 1e-5
    """Of the norms."""
    init_std: float = 0.02
    """Standard deviation of the weights before training."""

    def __post_init__(self) -> None:
        for key in ("n_layers", "n_heads", "d_head", "d_mlp", "d_vocab", "n_ctx", "n_depth", "n_valid"):
            if getattr(self, key) < 1:
                raise ValueError(f"model.{key}={getattr(self, key)}: at least 1")
        if self.d_model < 6:
            raise ValueError(f"model.d_model={self.d_model}: positions take six dimensions, so at least 6")

    @property
    def sites(self) -> list[str]:
        """Five for two blocks."""
        return site_names([True] * self.n_layers)

    @property
    def layer_norm(self) -> bool:
        return False  # RMSNorm subtracts nothing

    @property
    def io_parameters(self) -> tuple[str, ...]:
        return IO_PARAMETERS

    @property
    def final_gain(self) -> tuple[str, ...]:
        return (FINAL_GAIN,)

    def check_task(self, task: Any) -> None:
        if not isinstance(task, DyckConfig):
            raise ValueError(f"model=dyck_transformer learns task=dyck3, not task={task.name}")  # noqa: TRY004  # of a request
        if task.context != self.n_ctx or task.max_depth + 1 != self.n_depth:
            raise ValueError(
                f"task.context={task.context}, task.max_depth={task.max_depth}: the model has "
                f"model.n_ctx={self.n_ctx} and model.n_depth={self.n_depth} (max_depth + 1)"
            )

    def symmetries(self) -> "Symmetries":
        from polymorph.models.dyck_transformer.symmetries import symmetries

        return symmetries(self)

    def untrained(self, seed: int) -> "DyckTransformer":
        from polymorph.models.dyck_transformer.model import DyckTransformer

        return DyckTransformer(self, seed)

    def hooked(
        self, weights: "Weights", reference: Mapping[str, Any] | None, buffers: "Weights"
    ) -> "DyckTransformer":
        from polymorph.models.dyck_transformer.model import DyckTransformer

        model = DyckTransformer(self, 0)
        model.load_state_dict({**weights, **buffers}, strict=False)
        model.lays_flat = self.flat_ready()
        return model

    def flat_ready(self) -> bool:
        from polymorph.kernels.ragged_attention import has_kernel

        return has_kernel(self.d_head)

    def files(self) -> dict[str, bytes]:
        return {}
