"""GPT-NeoX of any size as a request states it; torch is imported when a model is made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polymorph.models.sites import site_names
from polymorph.tasks.registry import heads_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import GPTNeoXConfig

    from polymorph.models.architecture import Weights
    from polymorph.models.causal_lm import HookedCausalLM

UNEMBEDDING = "embed_out"
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"


@dataclass
class GPTNeoXArchitecture:
    """Architecture; the shape of Pythia at a size that trains in minutes."""

    name: str = "gpt_neox"
    """Chosen as `model=gpt_neox`."""
    n_layers: int = 4
    """Blocks."""
    d_model: int = 128
    """Width of the residual stream."""
    n_heads: int = 4
    """Heads of a block."""
    d_mlp: int = 512
    """Neurons of a block."""
    d_vocab: int = 2048
    """Tokens, used or not."""
    n_ctx: int = 256
    """Tokens that a sequence may have."""
    rotary_pct: float = 0.25
    """Share of a head's dimensions that turn with the position."""
    parallel: bool = True
    """Attention and MLP read the same residual stream, as in Pythia; there is no `resid_mid` then."""
    eps: float = 1e-5
    """Of the norms."""
    init_std: float = 0.02
    """Standard deviation of the weights before training."""

    def __post_init__(self) -> None:
        for key in ("n_layers", "d_model", "n_heads", "d_mlp", "d_vocab", "n_ctx"):
            if getattr(self, key) < 1:
                raise ValueError(f"model.{key}={getattr(self, key)}: at least 1")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"model.d_model={self.d_model}, model.n_heads={self.n_heads}: a multiple of the heads"
            )
        if not 0 < self.rotary_pct <= 1 or round(self.d_model / self.n_heads * self.rotary_pct) < 2:
            raise ValueError(
                f"model.rotary_pct={self.rotary_pct}: a share of d_model / n_heads, two dimensions at least"
            )

    @property
    def sites(self) -> list[str]:
        return site_names([not self.parallel] * self.n_layers)

    @property
    def layer_norm(self) -> bool:
        return True

    @property
    def io_parameters(self) -> tuple[str, ...]:
        return ("gpt_neox.embed_in.weight", f"{UNEMBEDDING}.weight")

    @property
    def final_gain(self) -> tuple[str, ...]:
        return ("gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias")

    def check_task(self, task: Any) -> None:
        if (heads := heads_of(task)) != ("tok",):
            raise ValueError(
                f"model=gpt_neox learns task=text, or another with the one head tok, not task={task.name} with "
                f"the heads {', '.join(heads)}"
            )
        if task.context > self.n_ctx:
            raise ValueError(f"task.context={task.context}: at most model.n_ctx={self.n_ctx}")
        if getattr(task, "tokenizer", None) == "train" and task.vocab_size > self.d_vocab:
            raise ValueError(f"task.vocab_size={task.vocab_size}: at most model.d_vocab={self.d_vocab}")

    def untrained(self, seed: int) -> "nn.Module":
        """As `transformers` initialises it, from the seed's own generator."""
        from polymorph.models.gpt_neox.model import seeded

        return seeded(self.huggingface(), seed)

    def hooked(
        self, weights: "Weights", reference: Mapping[str, Any] | None, buffers: "Weights"
    ) -> "HookedCausalLM":
        from polymorph.models.gpt_neox.model import with_weights

        return with_weights(self.huggingface(), weights)

    def flat_ready(self) -> bool:
        return False  # its windows are of one length, and stacked they are as fast

    def files(self) -> dict[str, bytes]:
        """`config.json`, with which `AutoModelForCausalLM.from_pretrained` opens the folder of a checkpoint."""
        config = {
            **self.huggingface().to_diff_dict(),
            "architectures": ["GPTNeoXForCausalLM"],
            "transformers_weights": WEIGHTS,
        }
        for changing in ("transformers_version", "_attn_implementation_autoset"):
            config.pop(changing, None)  # the same weights give the same bytes under any release
        return {CONFIG: json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"}

    def huggingface(self) -> "GPTNeoXConfig":
        """The same as `transformers` states it."""
        from transformers import GPTNeoXConfig

        return GPTNeoXConfig(
            vocab_size=self.d_vocab,
            hidden_size=self.d_model,
            num_hidden_layers=self.n_layers,
            num_attention_heads=self.n_heads,
            intermediate_size=self.d_mlp,
            max_position_embeddings=self.n_ctx,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": self.rotary_pct,
            },
            use_parallel_residual=self.parallel,
            layer_norm_eps=self.eps,
            initializer_range=self.init_std,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="eager",  # type: ignore[call-arg]  # explicit products have batching rules: vmap runs them as one
            use_cache=False,
            dtype="float32",
        )
