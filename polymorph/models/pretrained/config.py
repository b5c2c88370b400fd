"""What imported members of a cohort share; torch is imported when a model is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polymorph.models.architecture import Weights
    from polymorph.models.causal_lm import HookedCausalLM


@dataclass
class PretrainedArchitecture:
    """What the imported members of a cohort share; read off the first of them, never guessed."""

    name: str = "pretrained"
    model_type: str = ""
    """The architecture in the words of `transformers`, as gpt_neox."""
    n_layers: int = 0
    d_model: int = 0
    d_vocab: int = 0
    n_ctx: int = 0
    norm: str = ""
    """LN (LayerNorm) or RMS (RMSNorm), as TransformerLens says."""
    mean_free: bool = False
    """Whether nothing behind any site sees the mean over dimensions, as it was measured."""
    sites: list[str] = field(default_factory=list)

    @property
    def layer_norm(self) -> bool:
        return self.mean_free

    def hooked(
        self, weights: "Weights", reference: Mapping[str, Any] | None, buffers: "Weights"
    ) -> "HookedCausalLM":
        """The model that the reference names; `RequestError` if it is not that of when it was imported."""
        from polymorph.models.causal_lm import HookedCausalLM
        from polymorph.models.pretrained.description import check_answers
        from polymorph.models.pretrained.reference import Pretrained

        if reference is None:
            raise ValueError("a pretrained member is read by its reference, and there is none")
        model = Pretrained.of(reference).model()
        check_answers(model, reference["answers"], str(reference["repository"]))
        return HookedCausalLM(model)
