"""Causal language models of `transformers` under TransformerLens hooks, through its bridge."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from polymorph.models.sites import site_names

HEAD = "tok"
"""The one head of a language model: the next token."""


class HookedCausalLM(nn.Module):
    """A model of `transformers` with hooks; the residual stream is raw, before any norm is folded or weight centred."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.bridge = _bridge(model)

    def forward(self, tokens: Int[Tensor, "row pos"]) -> dict[str, Float[Tensor, "row pos d_vocab"]]:
        return {HEAD: self.bridge(tokens)}

    def run_with_hooks(
        self, tokens: Int[Tensor, "row pos"], *, fwd_hooks: Any = ()
    ) -> dict[str, Float[Tensor, "row pos d_vocab"]]:
        """Logits with hooks on the way; `ValueError` for a hook point that the model does not have."""
        for name, _ in fwd_hooks:
            if name not in self.bridge.hook_dict:  # the bridge would pass over it without a word
                raise ValueError(f"this model has no hook point {name}")
        return {HEAD: self.bridge.run_with_hooks(tokens, fwd_hooks=list(fwd_hooks))}

    @property
    def hook_dict(self) -> Mapping[str, Any]:
        return dict(self.bridge.hook_dict)


def _bridge(model: PreTrainedModel) -> TransformerBridge:
    # The bridge wants a tokenizer, and looks for one on the hub unless it is given one; only tokens come here.
    none = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    with _quiet():
        return TransformerBridge.boot_transformers(
            "given", hf_model=model.eval(), tokenizer=none, dtype=torch.float32, device="cpu"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without advice about tokenizers and compatibility modes, which is not for our users."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def residual_sites(hooked: HookedCausalLM, n_layers: int) -> list[str]:
    """The distinct places of the residual stream; a model with parallel blocks has none in the middle of a block."""
    middle = [f"blocks.{layer}.hook_resid_mid" in hooked.hook_dict for layer in range(n_layers)]
    return site_names(middle)


def float32_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The parameters under their own names, in float32; one that two names share is there once."""
    return {name: value.detach().float() for name, value in model.named_parameters()}
