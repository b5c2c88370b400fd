"""Members whose functions are known: copies turned in their residual stream, and labels that a model gives itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from polymorph.evidence.evidence import Evidence, History
from polymorph.evidence.pairs import End, PairLabel, pairs_of
from polymorph.models.activations import ModelActivations
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.models.functions import Functions
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import DISTRIBUTIONS, Dyck
from polymorph.tasks.task import IGNORED, Chunk, Split

CPU = torch.device("cpu")
CONFIG = DyckTransformerConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32, init_std=0.3)
PROBE = ProbeConfig(fit=96, eval=48)
READS = ("attn.W_Q", "attn.W_K", "attn.W_V", "mlp.W_in")
WRITES = ("attn.W_O", "mlp.W_out")


def haar_matrix(d: int, seed: int) -> Tensor:
    """Uniformly random in O(d)."""
    generator = torch.Generator().manual_seed(seed)
    Q, R = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return Q * R.diagonal().sign()


def rotated(model: DyckTransformer, R: Tensor) -> DyckTransformer:
    """The same function, its residual stream x turned to x R: what reads it is turned back, what writes it along.

    Gains of the norms, which are along axes, go into the weights that read behind them, and are 1.
    """
    state = {name: value.double() for name, value in model.state_dict().items()}
    for block in range(model.config.n_layers):
        for name, norm in zip(READS, ("ln1.w", "ln1.w", "ln1.w", "ln2.w"), strict=True):
            key = f"blocks.{block}.{name}"
            state[key] = R.mT @ (state[key] * state[f"blocks.{block}.{norm}"][:, None])
        for name in WRITES:
            state[f"blocks.{block}.{name}"] = state[f"blocks.{block}.{name}"] @ R
    for head in model.unembed:
        key = f"unembed.{head}.W_U"
        state[key] = R.mT @ (state[key] * state["ln_final.w"][:, None])
    for name in ("W_E", "W_pos"):
        state[name] = state[name] @ R
    for name in state:
        if name.endswith(".w"):
            state[name] = torch.ones_like(state[name])
    return built(model.config, state)


def built(config: DyckTransformerConfig, state: Mapping[str, Tensor]) -> DyckTransformer:
    """The model with these weights, for evaluation."""
    made = DyckTransformer(config, 0)
    made.load_state_dict({name: value.float() for name, value in state.items()})
    return made.eval().requires_grad_(False)


def random_model(seed: int, config: DyckTransformerConfig = CONFIG, sure: float = 10.0) -> DyckTransformer:
    """With gains that are not 1, and so sure of its answers that their own entropy is small."""
    made = DyckTransformer(config, seed)
    state = made.state_dict()
    generator = torch.Generator().manual_seed(1000 + seed)
    for name, value in state.items():
        if name.endswith(".w"):
            state[name] = 0.5 + torch.rand(value.shape, generator=generator)
        elif name.startswith("unembed"):
            state[name] = sure * value
    return built(config, state)


def near(model: DyckTransformer, noise: float, seed: int) -> DyckTransformer:
    """The model with noise on every weight, in shares of their spread."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: value + noise * value.std() * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }
    return built(model.config, state | {"W_pos": model.W_pos})


def deaf(model: DyckTransformer) -> DyckTransformer:
    """The model, to which all tokens are one: what it computes follows from positions alone."""
    return built(model.config, model.state_dict() | {"W_E": model.W_E[:1].expand_as(model.W_E)})


class Answered(Dyck):
    """Dyck inputs, labelled with the most probable classes of a model; `without` of every so many have no label."""

    def __init__(self, model: DyckTransformer, without: int = 0, heads: Sequence[str] | None = None) -> None:
        super().__init__()
        self.model, self.without, self.heads = model, without, heads

    def held_out(self, distribution: str, sequences: int, device: torch.device) -> Iterator[Chunk]:
        yield from map(self.labelled, super().held_out(distribution, sequences, device))

    def probe(self, probe: ProbeConfig, split: Split, device: torch.device) -> Iterator[Chunk]:
        yield from map(self.labelled, super().probe(probe, split, device))

    def labelled(self, chunk: Chunk) -> Chunk:
        with torch.no_grad():
            said = self.model(*chunk.arguments, **chunk.keywords)
        found = {head: own.argmax(-1).masked_fill(~chunk.kept, IGNORED) for head, own in said.items()}
        if self.without:
            found["depth"][:, :: self.without] = IGNORED
        return replace(chunk, labels={head: found[head] for head in self.heads or found})


@dataclass(frozen=True)
class Members:
    """Models by seed and step, on a task that the model `teacher` labels."""

    models: Mapping[End, DyckTransformer]
    task: Dyck
    sites: Sequence[str] = tuple(CONFIG.sites)
    probe: ProbeConfig = field(default_factory=lambda: PROBE)
    distributions: Sequence[str] = DISTRIBUTIONS
    pairs: Sequence[PairLabel] | None = None
    blocks: int = 8
    opened: list[list[End]] = field(default_factory=list)

    def functions(self, ends: Sequence[End]) -> Functions:
        self.opened.append(list(ends))
        return Functions([self.models[end] for end in ends], self.sites, self.task, self.probe, CPU)

    def source(self, ends: Sequence[End]) -> ModelActivations:
        return ModelActivations([self.models[end] for end in ends], self.sites, self.task, self.probe, CPU)

    @property
    def evidence(self) -> Evidence:
        """All members at their last steps, with the steps before."""
        steps: dict[int, list[int]] = {}
        for seed, step in sorted(self.models):
            steps.setdefault(seed, []).append(step)
        histories = [
            History(seed, own, lambda at, seed=seed: self.source([(seed, step) for step in at]))
            for seed, own in steps.items()
        ]
        ends = [(seed, own[-1]) for seed, own in steps.items()]
        return Evidence(
            "planted",
            ends,
            pairs_of(ends) if self.pairs is None else self.pairs,
            self.source(ends),
            blocks=self.blocks,
            histories=histories,
            functions=self.functions,
        )
