"""Small GPT-NeoX models, the architecture of Pythia, as `transformers` defines it, trained here."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from polymorph.models.architecture import Weights
from polymorph.models.causal_lm import HEAD, HookedCausalLM
from polymorph.models.gpt_neox.config import UNEMBEDDING


class GPTNeoX(GPTNeoXForCausalLM):
    """The model of `transformers` under the names of the hub, answering as members of a stack do.

    Releases of `transformers` differ in what they call the unembedding inside; files have always said `embed_out`.
    """

    def __init__(self, config: GPTNeoXConfig) -> None:
        super().__init__(config)
        if "lm_head" in self._modules:
            self._modules[UNEMBEDDING] = self._modules.pop("lm_head")

    @property
    def lm_head(self) -> nn.Module:
        return self.get_submodule(UNEMBEDDING)

    def forward(self, tokens: Int[Tensor, "row pos"]) -> dict[str, Float[Tensor, "row pos d_vocab"]]:
        return {HEAD: super().forward(tokens, use_cache=False).logits}


def seeded(config: GPTNeoXConfig, seed: int) -> GPTNeoX:
    """As `transformers` initialises it, from the seed's own generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators as well
        return GPTNeoX(config)


def with_weights(config: GPTNeoXConfig, weights: Weights) -> HookedCausalLM:
    """The model with hooks, and with the weights of a checkpoint."""
    model = GPTNeoXForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name.replace("lm_head", UNEMBEDDING)])
    return HookedCausalLM(model)
