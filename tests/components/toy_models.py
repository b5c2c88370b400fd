"""Models small enough to know what they lose: one number u is written to a stream, and the loss is u."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.models.functions import Functions
from polymorph.models.symmetries import symmetries_of
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import Dyck
from polymorph.tasks.task import Chunk, Split

LENGTH, WIDTH = 4, 3
FAR = 40.0
"""With two classes and logits (−u, 0), the loss of class 0 is log(1 + eᵘ): u to 1e-17, where u is so large."""


class ToyBlock(nn.Module):
    def __init__(self, add: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.add = add
        self.hook_resid_pre, self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        return self.hook_resid_post(x + self.hook_mlp_out(self.add(x)))


class Toy(HookedRootModule):
    """Tokens are looked up in a table; every block adds something; the loss is FAR + read(stream)."""

    def __init__(
        self, adds: Sequence[Callable[[Tensor], Tensor]], read: Callable[[Tensor], Tensor], table: Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.blocks = nn.ModuleList(ToyBlock(add) for add in adds)
        self.read = read
        self.setup()

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.table[tokens]
        for block in self.blocks:
            x = block(x)
        u = FAR + self.read(x)
        return {"tok": torch.stack([-u, torch.zeros_like(u)], -1)}


@dataclass(frozen=True)
class ToyTask:
    """Documents of four tokens, of which the last row's last is not kept; all labels are class 0."""

    tokens: dict[Split, Tensor] = field(default_factory=dict)
    distributions: Sequence[str] = ("train", "other")
    headline: str = "tok"

    def probe(self, probe: ProbeConfig, split: Split, device: torch.device) -> Iterator[Chunk]:
        yield self._chunk(self.tokens[split][: getattr(probe, split)])

    def held_out(self, distribution: str, sequences: int, device: torch.device) -> Iterator[Chunk]:
        yield self._chunk(self.tokens["eval"][:sequences])

    def _chunk(self, tokens: Tensor) -> Chunk:
        kept = torch.ones_like(tokens, dtype=torch.bool)
        kept[-1, -1] = False
        place = torch.arange(tokens.shape[1]).expand(tokens.shape)[kept]
        document = torch.arange(len(tokens))[:, None].expand(tokens.shape)[kept]
        return Chunk((tokens,), {"tok": torch.zeros_like(tokens)}, kept, document, place, place)


def toy_functions(models: Sequence[Any], documents: int = 8, seed: int = 3) -> Functions:
    """Tokens 0…9 drawn uniformly, others on either split."""
    generator = torch.Generator().manual_seed(seed)
    fit, held = (torch.randint(10, (documents, LENGTH), generator=generator) for _ in range(2))
    task = ToyTask({"fit": fit, "eval": held})
    ready = [model.eval().requires_grad_(False) for model in models]
    return Functions(ready, (), task, ProbeConfig(documents, documents), torch.device("cpu"))  # type: ignore[arg-type]


def table(seed: int = 1) -> Tensor:
    return torch.randn(10, WIDTH, generator=torch.Generator().manual_seed(seed))


SMALL = DyckTransformerConfig(d_model=16, n_heads=4, d_head=4, d_mlp=24, init_std=0.3)


def dyck_functions(models: Sequence[Any], documents: int = 24) -> Functions:
    """Of small Dyck transformers."""
    ready = [model.eval().requires_grad_(False) for model in models]
    probe = ProbeConfig(documents, documents)
    return Functions(
        ready, tuple(SMALL.sites), Dyck(), probe, torch.device("cpu"), None, symmetries_of(SMALL)
    )


def heads_permuted(model: DyckTransformer, orders: Sequence[Sequence[int]]) -> DyckTransformer:
    """The same function with the heads of every layer in another order."""
    made = DyckTransformer(SMALL, 0)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for layer, order in enumerate(orders):
        for part in "QKVO":
            name = f"blocks.{layer}.attn.W_{part}"
            weights[name] = weights[name][list(order)]
    made.load_state_dict(weights)
    return made
