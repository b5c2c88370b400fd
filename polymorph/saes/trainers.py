"""Many SAEs trained side by side: as one stack where the architecture can be stacked, else in a loop.

A trainer takes activations [saes n d] a step and gives every loss component by SAE. Both follow SAELens'
`SAETrainer`: Adam, a gradient norm of at most 1 a SAE, its schedules, its account of dead features.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import torch
from jaxtyping import Float
from sae_lens import TrainingSAE
from sae_lens.saes.sae import TrainCoefficientConfig
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.optim import CoefficientScheduler, get_lr_scheduler
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from polymorph.errors import RequestError
from polymorph.saes.build import training_sae
from polymorph.saes.config import ESTIMATED, SAEConfig
from polymorph.saes.loss import STACKABLE, TrainingLoss
from polymorph.training.clipping import clip_members
from polymorph.training.numerics import default_threads
from polymorph.training.stack import Stack

CACHED = 2**20
"""Numbers of features × tokens that are worked on at once on a CPU: a few arrays of them stay in its caches."""
LEAST_TOKENS = 256
TRIED_TOKENS = 16


class Trainer(Protocol):
    """SAEs in training."""

    def prepare(self, batches: Iterator[Float[Tensor, "saes n d"]]) -> None:
        """Estimate the normalisation of activations from batches of their own, where an option asks for it."""
        ...

    def step(self, x: Float[Tensor, "saes n d"]) -> dict[str, Float[Tensor, " saes"]]:
        """One update of every SAE; the losses before it, `l0`, and `live_fraction` by SAELens' account."""
        ...

    def scaled(self, x: Float[Tensor, "saes n d"]) -> Float[Tensor, "saes n d"]:
        """What the SAEs see of these activations, and what their losses are of."""
        ...

    def finish(self) -> list[TrainingSAE[Any]]:
        """The SAEs on the CPU, with the normalisation folded in and the end of the training in their metadata."""
        ...


def trainer_of(saes: Sequence[TrainingSAE[Any]], config: SAEConfig, device: torch.device) -> Trainer:
    """The trainer that the architecture bears; `finish` ends its threads."""
    if config.architecture not in STACKABLE:
        return LoopedTrainer(saes, config, device)
    workers = default_threads() if config.threads is None else config.threads
    return StackedTrainer(saes, config, device, workers if device.type == "cpu" else 1)


def try_options(config: SAEConfig, d_in: int) -> None:
    """`RequestError` if an SAE with these options cannot be made, or cannot take a step."""
    generator = torch.Generator().manual_seed(0)
    try:
        trainer = trainer_of(
            [training_sae(config, d_in, 0, {})], replace(config, threads=1), torch.device("cpu")
        )
        trainer.step(torch.randn(1, TRIED_TOKENS, d_in, generator=generator))
        trainer.finish()
    # SAELens checks few of them, and what the others raise is anybody's guess.
    except Exception as error:
        options = ", ".join(f"{key}={value}" for key, value in config.options.items())
        raise RequestError(
            f"sae.options: {config.architecture} of {config.expansion * d_in} features cannot be trained with "
            f"{options}: {type(error).__name__}: {error}"
        ) from error


class LoopedTrainer:
    """SAELens' own trainer for each SAE, one after another."""

    def __init__(self, saes: Sequence[TrainingSAE[Any]], config: SAEConfig, device: torch.device) -> None:
        own = config.trainer(str(device))
        self.config = config
        self.trainers = [SAETrainer(own, sae.to(device), iter(())) for sae in saes]

    def prepare(self, batches: Iterator[Tensor]) -> None:
        _estimate([t.activation_scaler for t in self.trainers], self.config, batches)

    def step(self, x: Tensor) -> dict[str, Tensor]:
        measured = [self._step(trainer, own) for trainer, own in zip(self.trainers, x, strict=True)]
        return {name: torch.stack([own[name] for own in measured]) for name in measured[0]}

    def scaled(self, x: Tensor) -> Tensor:
        return _scaled([trainer.activation_scaler for trainer in self.trainers], x)

    def _step(self, trainer: SAETrainer[Any, Any], x: Tensor) -> dict[str, Tensor]:
        trainer.maybe_reset_sparsity()
        out = trainer.step(x)
        trainer.n_training_steps += 1
        acts = out.feature_acts.to_dense() if out.feature_acts.is_sparse else out.feature_acts
        if self.config.unit_norm_decoder:
            _normalise(trainer.sae.W_dec)
        return {
            "loss": out.loss.detach(),
            **{name: loss.detach() for name, loss in out.losses.items()},
            "l0": (acts != 0).sum(-1).float().mean(),
            "live_fraction": 1 - trainer.dead_neurons.float().mean(),
        }

    def finish(self) -> list[TrainingSAE[Any]]:
        for trainer in self.trainers:
            trainer.set_final_sae_metadata()
            _fold(trainer.sae, trainer.activation_scaler)
        return [trainer.sae.cpu().eval() for trainer in self.trainers]


class StackedTrainer:
    """All SAEs as stacks, each of so many that its activations stay in the caches of a CPU; one on an accelerator.

    The batch is cut as well, and gradients are added up: every loss here is a mean over tokens. A plain product
    batched over all SAEs is slower on a CPU than one SAE after another.

    On a CPU the stacks share `workers` threads, and each is worked on by one of them: threads that share a
    product wait for one another, and much longer if anything else runs beside. So the number of workers does not
    touch the bits, if PyTorch itself has one thread.
    """

    def __init__(
        self, saes: Sequence[TrainingSAE[Any]], config: SAEConfig, device: torch.device, workers: int = 1
    ) -> None:
        self.config, self.device, self.saes = config, device, list(saes)
        own = config.trainer(str(device))
        d_sae = saes[0].cfg.d_sae
        at_once, self.tokens = _sizes(len(saes), d_sae, config.batch_size, device)
        self.stacks = [
            Stack([TrainingLoss(sae) for sae in saes[first : first + at_once]]).to(device)
            for first in range(0, len(saes), at_once)
        ]
        parameters = [p for stack in self.stacks for p in stack.parameters()]
        self.optimizer = torch.optim.Adam(
            parameters, config.optimizer.lr, (own.adam_beta1, own.adam_beta2), fused=True
        )
        assert own.lr_end is not None
        self.schedule = get_lr_scheduler(
            own.lr_scheduler_name,
            lr=own.lr,
            optimizer=self.optimizer,
            warm_up_steps=own.lr_warm_up_steps,
            decay_steps=own.lr_decay_steps,
            training_steps=own.total_training_steps,
            lr_end=own.lr_end,
            num_cycles=own.n_restart_cycles,
        )
        self.coefficients = {name: _schedule(value) for name, value in saes[0].get_coefficients().items()}
        self.scalers = [ActivationScaler() for _ in saes]
        self.pool = None
        if workers > 1:
            self.pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        self._map: Callable[..., Iterator[Any]] = map if self.pool is None else self.pool.map
        self.silent = torch.zeros(len(saes), d_sae, device=device)  # steps since a feature fired
        self.fired = torch.zeros(len(saes), d_sae, device=device)
        self.seen = self.steps = 0

    @property
    def dead(self) -> Tensor:
        return self.silent > self.config.dead_feature_window

    def prepare(self, batches: Iterator[Tensor]) -> None:
        _estimate(self.scalers, self.config, batches)

    def step(self, x: Tensor) -> dict[str, Tensor]:
        if self.steps and self.steps % self.config.feature_sampling_window == 0:
            self.fired.zero_()
            self.seen = 0
        sizes = [stack.size for stack in self.stacks]
        parts = self.scaled(x).split(sizes), self.dead.split(sizes)
        found = list(self._map(self._gradients, self.stacks, *parts))
        self._update()
        counts = torch.cat([count for _, count in found])
        self._account(counts, x.shape[1])
        together = {name: torch.cat([losses[name] for losses, _ in found]) for name in found[0][0]}
        l0 = counts.sum(-1) / x.shape[1]
        return {**together, "l0": l0, "live_fraction": 1 - self.dead.float().mean(-1)}

    def scaled(self, x: Tensor) -> Tensor:
        return _scaled(self.scalers, x)

    def _gradients(self, stack: Stack, x: Tensor, dead: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Gradients of a stack, added up over parts of the batch and clipped; mean losses, how often features fired."""
        coefficients = {name: schedule.value for name, schedule in self.coefficients.items()}
        masks = (dead,) if bool(dead.any()) else ()
        total: dict[str, Tensor] = {}
        count = torch.zeros_like(dead, dtype=x.dtype)
        for part in x.split(self.tokens, dim=1):
            share = part.shape[1] / x.shape[1]
            loss, losses, fired = stack(part, *masks, coefficients=coefficients)
            (loss.sum() * share).backward()
            count += fired
            for name, value in {"loss": loss, **losses}.items():
                total[name] = total.get(name, 0) + share * value.detach()
        clip_members(stack.parameters(), 1.0, stack.size)
        return total, count

    def _update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        for coefficient in self.coefficients.values():
            coefficient.step()
        if self.config.unit_norm_decoder:
            for stack in self.stacks:
                _normalise(dict(stack.named_member_parameters())["sae.W_dec"])
        self.steps += 1

    def _account(self, counts: Tensor, tokens: int) -> None:
        self.silent = torch.where(counts > 0, 0.0, self.silent + 1)
        self.fired += counts
        self.seen += tokens

    def finish(self) -> list[TrainingSAE[Any]]:
        if self.pool is not None:
            self.pool.shutdown()
        weights = [stack.member_weights(index) for stack in self.stacks for index in range(stack.size)]
        dead = self.dead.sum(-1)
        for index, (sae, own) in enumerate(zip(self.saes, weights, strict=True)):
            sae.load_state_dict({name.removeprefix("sae."): value for name, value in own.items()})
            if self.seen:
                sae.cfg.metadata.l0 = float(self.fired[index].sum() / self.seen)
                sae.cfg.metadata.num_dead_features = int(dead[index])
            _fold(sae, self.scalers[index])
        return [sae.eval() for sae in self.saes]


def training_bytes(saes: int, d_in: int, config: SAEConfig, device: torch.device) -> int:
    """About the memory that training so many SAEs takes: weights, gradients and moments, the batch, and activations."""
    d_sae = config.expansion * d_in
    at_once, tokens = _sizes(saes, d_sae, config.batch_size, device)
    weights = 4 * saes * 2 * d_in * d_sae
    kept = (
        config.n_batches_for_norm_estimate if config.options.get("normalize_activations") in ESTIMATED else 0
    )
    batch = max(3, kept) * saes * config.batch_size * d_in
    return 4 * (weights + batch + 8 * at_once * tokens * d_sae)


def _sizes(saes: int, d_sae: int, batch: int, device: torch.device) -> tuple[int, int]:
    """SAEs and tokens at once."""
    if device.type != "cpu":
        return saes, batch
    return 1, min(batch, max(LEAST_TOKENS, CACHED // d_sae))


def _schedule(value: TrainCoefficientConfig | float) -> CoefficientScheduler:
    if not isinstance(value, TrainCoefficientConfig):
        value = TrainCoefficientConfig(value, 0)
    return CoefficientScheduler(warm_up_steps=value.warm_up_steps, final_value=value.value)


def _estimate(
    scalers: Sequence[ActivationScaler], config: SAEConfig, batches: Iterator[Float[Tensor, "saes n d"]]
) -> None:
    """SAELens' own estimates, from the same batches for all."""
    wanted = config.options.get("normalize_activations")
    if wanted not in ESTIMATED:
        return
    n = config.n_batches_for_norm_estimate
    kept = list(islice(batches, n))
    for index, scaler in enumerate(scalers):
        own = iter([batch[index] for batch in kept])
        estimate = (
            scaler.estimate_scaling_factor
            if wanted == "expected_average_only_in"
            else scaler.estimate_whitening
        )
        estimate(d_in=kept[0].shape[-1], data_provider=own, n_batches_for_norm_estimate=n)


def _scaled(scalers: Sequence[ActivationScaler], x: Float[Tensor, "saes n d"]) -> Float[Tensor, "saes n d"]:
    if all(scaler.scaling_factor is None and scaler.whitening is None for scaler in scalers):
        return x
    return torch.stack([scaler(own) for scaler, own in zip(scalers, x, strict=True)])


def _fold(sae: TrainingSAE[Any], scaler: ActivationScaler) -> None:
    if scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if (whitening := scaler.whitening) is not None:
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)


@torch.no_grad()
def _normalise(decoder: Tensor) -> None:
    decoder /= decoder.norm(dim=-1, keepdim=True)
