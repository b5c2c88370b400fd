"""Many SAEs trained side by side: as one stack where the architecture can be stacked, else in a loop.

A trainer takes activations [saes n d] a step and gives every loss component by SAE. Both follow SAELens'
`SAETrainer`: Adam, a gradient norm of at most 1 a SAE, its schedules, its account of dead features.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from sae_lens import TrainingSAE
from torch import Tensor

from polymorph.errors import RequestError
from polymorph.kernels.native import CompileError
from polymorph.saes.build import training_sae
from polymorph.saes.config import ESTIMATED, STACKABLE, SAEConfig
from polymorph.saes.kernels import compiled
from polymorph.saes.looped import LoopedTrainer
from polymorph.saes.passes import EagerPasses, Passes
from polymorph.saes.stacked import StackedTrainer, sizes
from polymorph.training.numerics import default_threads

TRIED_TOKENS = 16
WORTH_COMPILING = 2**28
"""Features × tokens of an SAE's whole training from which on compiled passes gain more than a compiler takes."""


class Trainer(Protocol):
    """SAEs in training."""

    compiled: bool
    """Whether the passes between the products are compiled."""

    def prepare(self, batches: Iterator[Float[Tensor, "saes n d"]]) -> None:
        """Estimate the normalisation of activations from batches of their own, where an option asks for it."""
        ...

    def step(self, x: Float[Tensor, "saes n d"]) -> dict[str, Float[Tensor, " saes"]]:
        """One update of every SAE; the losses before it, `l0`, and `live_fraction` by SAELens' account."""
        ...

    def scaled(self, x: Float[Tensor, "saes n d"]) -> Float[Tensor, "saes n d"]:
        """What the SAEs see of these activations, and what their losses are of."""
        ...

    def state(self) -> list[dict[str, Tensor]]:
        """What going on after this step needs of each SAE, as tensors."""
        ...

    def restore(self, states: Sequence[Mapping[str, Tensor]], step: int) -> None:
        """Make this fresh trainer, which is of the same SAEs, the one of `state` after `step` updates, bit for bit."""
        ...

    def finish(self) -> list[TrainingSAE[Any]]:
        """The SAEs on the CPU, with the normalisation folded in and the end of the training in their metadata."""
        ...


def trainer_of(saes: Sequence[TrainingSAE[Any]], config: SAEConfig, device: torch.device) -> Trainer:
    """The trainer that the architecture bears; `finish` ends its threads. `RequestError` if it cannot be compiled."""
    config = config.resolved(device)
    passes = passes_of(config, saes[0].cfg.d_sae, device)
    if config.architecture not in STACKABLE:
        return LoopedTrainer(saes, config, device)
    workers = default_threads() if config.threads is None else config.threads
    workers = workers if device.type == "cpu" else 1
    own = passes if passes is not None else EagerPasses()
    return StackedTrainer(saes, config, device, own, workers, passes is not None)


def passes_of(config: SAEConfig, d_sae: int, device: torch.device) -> Passes | None:
    """The compiled passes, where `sae.compile` means them; None for those of PyTorch."""
    if config.compile is False:
        return None
    bears = config.has_closed_form() and device.type == "cpu"
    if config.compile is True and not bears:
        raise RequestError(
            f"sae.compile=true: only the passes of {', '.join(STACKABLE)} on a CPU are compiled, and neither other "
            "norms nor normalisation by token"
        )
    work = config.steps * config.batch_size * d_sae
    if config.compile == "auto" and not (bears and work >= WORTH_COMPILING):
        return None
    try:
        return compiled()
    except CompileError as error:
        if config.compile is True:
            raise RequestError(f"sae.compile=true: {error}") from error
        logging.getLogger(__name__).warning("SAEs are trained with passes that are not compiled: %s", error)
        return None


def try_options(config: SAEConfig, d_in: int) -> None:
    """`RequestError` if an SAE with these options cannot be made, or cannot take a step."""
    generator = torch.Generator().manual_seed(0)
    try:
        trainer = trainer_of(
            [training_sae(config, d_in, 0, {})], replace(config, threads=1), torch.device("cpu")
        )
        trainer.step(torch.randn(1, TRIED_TOKENS, d_in, generator=generator))
        trainer.finish()
    except RequestError:
        raise
    # SAELens checks few of them, and what the others raise is anybody's guess.
    except Exception as error:
        options = ", ".join(f"{key}={value}" for key, value in config.options.items())
        raise RequestError(
            f"sae.options: {config.architecture} of {config.expansion * d_in} features cannot be trained with "
            f"{options}: {type(error).__name__}: {error}"
        ) from error


def training_bytes(saes: int, d_in: int, config: SAEConfig, device: torch.device) -> int:
    """About the memory that training so many SAEs takes: weights, gradients and moments, the batch, and activations."""
    d_sae = config.expansion * d_in
    at_once, tokens = sizes(saes, d_sae, config.batch_size, device)
    weights = 4 * saes * 2 * d_in * d_sae
    kept = (
        config.n_batches_for_norm_estimate if config.options.get("normalize_activations") in ESTIMATED else 0
    )
    batch = max(3, kept) * saes * config.batch_size * d_in
    return 4 * (weights + batch + 8 * at_once * tokens * d_sae)
