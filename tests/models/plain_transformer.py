"""The paper's forward pass written once more from its description, one sequence a row."""

import math

import torch
from torch import Tensor

from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer


def gained(seed: int = 0, **config: int) -> DyckTransformer:
    """A float64 model whose weights are large and whose gains are not 1, so that every factor shows."""
    model = DyckTransformer(DyckTransformerConfig(**config), seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".w"):
                parameter.copy_(1 + 0.5 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.mul_(10)
    return model


def rms_norm(x: Tensor, gain: Tensor, eps: float = 1e-5) -> Tensor:
    return gain * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of [row, pos, head, d]."""
    scores = torch.einsum("rqhd,rkhd->rhqk", q, k) / math.sqrt(q.shape[-1])
    visible = torch.ones(q.shape[1], q.shape[1]).tril().bool()
    pattern = torch.where(visible, scores, -torch.inf).softmax(-1)
    return torch.einsum("rhqk,rkhd->rqhd", pattern, v)


def plain_logits(weights: dict[str, Tensor], tokens: Tensor, n_layers: int = 2) -> dict[str, Tensor]:
    x = weights["W_E"][tokens] + weights["W_pos"][: tokens.shape[1]]
    for layer in range(n_layers):
        block = {k.removeprefix(f"blocks.{layer}."): w for k, w in weights.items()}
        y = rms_norm(x, block["ln1.w"])
        q, k, v = (torch.einsum("rpm,hmd->rphd", y, block[f"attn.W_{name}"]) for name in "QKV")
        x = x + torch.einsum("rphd,hdm->rpm", attention(q, k, v), block["attn.W_O"])
        x = x + (rms_norm(x, block["ln2.w"]) @ block["mlp.W_in"]).relu() @ block["mlp.W_out"]
    y = rms_norm(x, weights["ln_final.w"])
    return {head: y @ weights[f"unembed.{head}.W_U"] for head in ("tok", "depth", "valid")}
