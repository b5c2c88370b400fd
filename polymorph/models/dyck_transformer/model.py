"""The paper's transformer for Dyck-3 (104,448 parameters), with TransformerLens hooks at every site.

Two pre-norm blocks, ReLU, no biases, RMSNorm with gain, untied embedding and three unembeddings. Positions
are fixed analytic features in the first six dimensions of the residual stream.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from polymorph.kernels.rectifier import relu
from polymorph.models.attention import attend, attend_ragged, attention_scores, starts_of
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.norm import RMSNorm
from polymorph.tasks.packing import Layout


def analytic_positions(n_ctx: int, d_model: int) -> Float[Tensor, "n_ctx d_model"]:
    """t/n, 1/(t+1), ln(t+1)/ln n, [t=0], cos 2πt/n and sin 2πt/n in dimensions 0…5; zero elsewhere."""
    t = torch.arange(n_ctx, dtype=torch.float64)
    turn = 2 * math.pi * t / n_ctx
    features = (
        t / n_ctx,
        1 / (t + 1),
        (t + 1).log() / math.log(max(n_ctx, 2)),
        (t == 0).double(),
        turn.cos(),
        turn.sin(),
    )
    table = torch.zeros(n_ctx, d_model)
    table[:, : len(features)] = torch.stack(features, -1).float()
    return table


class Attention(nn.Module):
    def __init__(self, config: DyckTransformerConfig) -> None:
        super().__init__()
        shape = (config.n_heads, config.d_model, config.d_head)
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.empty(shape)) for _ in range(3))
        self.W_O = nn.Parameter(torch.empty(config.n_heads, config.d_head, config.d_model))
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z, self.hook_result = HookPoint(), HookPoint()

    def forward(
        self, x: Tensor, norm: RMSNorm, layout: Layout | Tensor | None
    ) -> Float[Tensor, "row pos d_model"]:
        n_heads, _, d_head = self.W_Q.shape
        weights = torch.cat([w.transpose(0, 1).flatten(1) for w in (self.W_Q, self.W_K, self.W_V)], -1)
        qkv = (x @ norm.fold(weights)).unflatten(-1, (3, n_heads, d_head))
        if _hooked(self.hook_q, self.hook_k, self.hook_v):
            hooks = (self.hook_q, self.hook_k, self.hook_v)
            qkv = torch.stack([hook(t) for hook, t in zip(hooks, qkv.unbind(-3), strict=True)], -3)
        z = self.hook_z(self._mix(qkv, layout))
        if _hooked(self.hook_result):
            return self.hook_result(torch.einsum("rphd,hdm->rphm", z, self.W_O)).sum(-2)
        return z.flatten(-2) @ self.W_O.flatten(0, 1)

    def _mix(self, qkv: Tensor, layout: Layout | Tensor | None) -> Float[Tensor, "row pos head d_head"]:
        if _hooked(self.hook_attn_scores, self.hook_pattern):
            if layout is not None:
                raise ValueError("attention patterns can be hooked on one sequence a row, not on packed rows")
            q, k, v = qkv.unbind(-3)
            pattern = self.hook_pattern(self.hook_attn_scores(attention_scores(q, k)).softmax(-1))
            return torch.einsum("rhqk,rkhd->rqhd", pattern, v)
        if isinstance(layout, Tensor):
            return attend_ragged(qkv, layout)
        if layout is not None:
            return attend(qkv, layout)
        rows, length = qkv.shape[:2]
        return attend(qkv.flatten(0, 1), ((rows, length),)).unflatten(0, (rows, length))


def _hooked(*points: HookPoint) -> bool:
    return any(point.has_hooks(dir="both") for point in points)


class MLP(nn.Module):
    def __init__(self, config: DyckTransformerConfig) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(config.d_model, config.d_mlp))
        self.W_out = nn.Parameter(torch.empty(config.d_mlp, config.d_model))
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, x: Tensor, norm: RMSNorm) -> Float[Tensor, "row pos d_model"]:
        return self.hook_post(relu(self.hook_pre(x @ norm.fold(self.W_in)))) @ self.W_out


class Block(nn.Module):
    def __init__(self, config: DyckTransformerConfig) -> None:
        super().__init__()
        self.ln1, self.attn = RMSNorm(config.d_model, config.eps), Attention(config)
        self.ln2, self.mlp = RMSNorm(config.d_model, config.eps), MLP(config)
        self.hook_resid_pre, self.hook_attn_out = HookPoint(), HookPoint()
        self.hook_resid_mid, self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()

    def forward(
        self, x: Tensor, layout: Layout | Tensor | None, start: str = "pre"
    ) -> Float[Tensor, "row pos d_model"]:
        """The stream behind the block; `start` says which of its three places `x` is at."""
        if start == "pre":
            x = self.hook_resid_pre(x)
            x = x + self.hook_attn_out(self.attn(self.ln1(x), self.ln1, layout))
        if start != "post":
            x = self.hook_resid_mid(x)
            x = x + self.hook_mlp_out(self.mlp(self.ln2(x), self.ln2))
        return self.hook_resid_post(x)


class Unembed(nn.Module):
    def __init__(self, d_model: int, classes: int) -> None:
        super().__init__()
        self.W_U = nn.Parameter(torch.empty(d_model, classes))


class DyckTransformer(HookedRootModule):
    """tokens → logits of three heads. Weights come from the seed's generator: N(0, init_std²), gains 1."""

    def __init__(self, config: DyckTransformerConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        self.starts_at = tuple(config.sites)
        self.lays_flat = False
        """Whether it can be called with `flat`, on a CPU."""
        self.W_E = nn.Parameter(torch.empty(config.d_vocab, config.d_model))
        self.register_buffer("W_pos", analytic_positions(config.n_ctx, config.d_model))
        self.hook_embed, self.hook_pos_embed = HookPoint(), HookPoint()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_final = RMSNorm(config.d_model, config.eps)
        heads = {"tok": config.d_vocab, "depth": config.n_depth, "valid": config.n_valid}
        self.unembed = nn.ModuleDict({head: Unembed(config.d_model, n) for head, n in heads.items()})
        self._initialise(seed)
        self.setup()

    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if not name.endswith(".w"):
                nn.init.normal_(parameter, std=self.config.init_std, generator=generator)

    def forward(
        self,
        tokens: Int[Tensor, "row pos"],
        positions: Int[Tensor, "row pos"] | None = None,
        layout: Layout | Tensor | None = None,
        start: tuple[str, Tensor] | None = None,
        flat: bool = False,
    ) -> dict[str, Float[Tensor, "row pos classes"]]:
        """Logits by head. Without a layout a row is one sequence; with one there is a single row, which holds
        sequences that do not see each other, and `positions` restart at 0 in each. A layout may also be the starts
        of the sequences, int64 [sequences + 1], on a CPU; tokens after the last start belong to none.

        With `start`, a site of the stream and the values there, nothing before it is computed. With `flat`, sequences
        in groups are laid end to end on a CPU: the same numbers to rounding, sooner."""
        first, stage, x = 0, "pre", None
        if start is not None:
            (_, number, site), x = start[0].split("."), start[1]
            first, stage = int(number), site.rpartition("_")[2]
        if x is None:
            x = self._embedded(tokens, positions)
        if flat and isinstance(layout, tuple) and x.device.type == "cpu" and x.dtype == torch.float32:
            layout = starts_of(layout, len(x))
        for place, block in enumerate(self.blocks[first:]):
            x = block(x, layout, "pre" if place else stage)
        weights = self.unembed_weights()
        logits = self.ln_final(x) @ self.ln_final.fold(torch.cat(list(weights.values()), -1))
        parts = logits.split([weight.shape[-1] for weight in weights.values()], -1)
        return dict(zip(weights, parts, strict=True))

    def _embedded(self, tokens: Tensor, positions: Tensor | None) -> Float[Tensor, "row pos d_model"]:
        where = self.W_pos[: tokens.shape[-1]] if positions is None else self.W_pos[positions]
        at = self.hook_pos_embed(where.expand(*tokens.shape, -1))
        return self.hook_embed(F.embedding(tokens, self.W_E)) + at

    def unembed_weights(self) -> dict[str, Float[Tensor, "d_model classes"]]:
        """The matrix of every head."""
        return {head: cast(Unembed, module).W_U for head, module in self.unembed.items()}
