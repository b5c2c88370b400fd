"""SAEs trained side by side as stacks, by SAELens' rules: Adam, a gradient norm of at most 1 a SAE, its schedules."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from sae_lens import TrainingSAE
from sae_lens.saes.sae import TrainCoefficientConfig
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.optim import CoefficientScheduler, get_lr_scheduler
from torch import Tensor

from polymorph.saes.closed import Form, Stepped, Weights, form_of, gradients
from polymorph.saes.config import SAEConfig
from polymorph.saes.looped import normalise
from polymorph.saes.loss import TrainingLoss
from polymorph.saes.passes import Passes
from polymorph.saes.scaling import estimate, fold, restore_scaler, scaled, scaler_state
from polymorph.training.clipping import clip_members
from polymorph.training.stack import Stack
from polymorph.training.state import member_state, restore_optimizer

CACHED = 2**20
"""Numbers of features × tokens that are worked on at once on a CPU: a few arrays of them stay in its caches."""
LEAST_TOKENS = 256
LOW = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class StackedTrainer:
    """All SAEs as stacks, each of so many that its activations stay in the caches of a CPU; one on an accelerator.

    The batch is cut as well, and gradients are added up: every loss here is a mean over tokens. A plain product
    batched over all SAEs is slower on a CPU than one SAE after another.

    On a CPU the stacks share `workers` threads, and each is worked on by one of them: threads that share a
    product wait for one another, and much longer if anything else runs beside. So the number of workers does not
    touch the bits, if PyTorch itself has one thread.
    """

    def __init__(
        self,
        saes: Sequence[TrainingSAE[Any]],
        config: SAEConfig,
        device: torch.device,
        passes: Passes,
        workers: int = 1,
        compiled: bool = False,
    ) -> None:
        self.config, self.device, self.saes, self.compiled = config, device, list(saes), compiled
        d_sae = saes[0].cfg.d_sae
        at_once, self.tokens = sizes(len(saes), d_sae, config.batch_size, device)
        self.stacks = [
            Stack([TrainingLoss(sae) for sae in saes[first : first + at_once]]).to(device)
            for first in range(0, len(saes), at_once)
        ]
        self.form = form_of(saes[0], passes, LOW[config.precision]) if config.has_closed_form() else None
        own = config.trainer(str(device))
        betas = own.adam_beta1, own.adam_beta2
        self.optimizers = [
            torch.optim.Adam(stack.parameters(), own.lr, betas, fused=True) for stack in self.stacks
        ]
        self.rate, self.schedule = _rate_schedule(config)
        self.coefficients = {
            name: _coefficient_schedule(value) for name, value in saes[0].get_coefficients().items()
        }
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
        estimate(self.scalers, self.config, batches)

    def step(self, x: Tensor) -> dict[str, Tensor]:
        if self.steps and self.steps % self.config.feature_sampling_window == 0:
            self.fired.zero_()
            self.seen = 0
        sizes = [stack.size for stack in self.stacks]
        parts = self.scaled(x).split(sizes), self.dead.split(sizes)
        found = list(self._map(self._update, self.stacks, self.optimizers, *parts))
        self._advance()
        counts = torch.cat([count for _, count in found])
        self._account(counts, x.shape[1])
        together = {name: torch.cat([losses[name] for losses, _ in found]) for name in found[0][0]}
        l0 = counts.sum(-1) / x.shape[1]
        return {**together, "l0": l0, "live_fraction": 1 - self.dead.float().mean(-1)}

    def scaled(self, x: Tensor) -> Tensor:
        return scaled(self.scalers, x)

    def _update(
        self, stack: Stack, optimizer: torch.optim.Adam, x: Tensor, dead: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Update one stack; its mean losses before, and on how many tokens each feature fired."""
        if self.form is None:
            losses, count = self._backward(stack, x)
        else:
            found, losses, count = self._closed(self.form, stack, x, dead if bool(dead.any()) else None)
            for name, parameter in stack.named_member_parameters():
                parameter.grad = found[name.removeprefix("sae.")]
        clip_members(stack.parameters(), 1.0, stack.size)
        optimizer.param_groups[0]["lr"] = self.rate.param_groups[0]["lr"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if self.config.unit_norm_decoder:
            normalise(dict(stack.named_member_parameters())["sae.W_dec"])
        return losses, count

    @torch.no_grad()
    def _closed(self, form: Form, stack: Stack, x: Tensor, dead: Tensor | None) -> Stepped:
        """Gradients in closed form, added up over parts of the batch; everything has the member axis first."""
        coefficients = {name: schedule.value for name, schedule in self.coefficients.items()}
        state = {name.removeprefix("sae."): p.detach() for name, p in stack.named_member_parameters()}

        def one(own: dict[str, Tensor], x: Tensor, dead: Tensor | None) -> Stepped:
            weights = Weights(own, form.precision)
            return _added(
                [gradients(form, weights, part, dead, coefficients, len(x)) for part in x.split(self.tokens)]
            )

        if stack.size > 1:
            found: Stepped = torch.vmap(one, (0, 0, None if dead is None else 0))(state, x, dead)
            return found
        gradient, losses, count = one(
            {name: value[0] for name, value in state.items()}, x[0], None if dead is None else dead[0]
        )
        return _first_axis(gradient), _first_axis(losses), count[None]

    def _backward(self, stack: Stack, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """As `_closed`, by autograd: the gradients are left with the parameters."""
        coefficients = {name: schedule.value for name, schedule in self.coefficients.items()}
        total: dict[str, Tensor] = {}
        count: Tensor | float = 0.0
        low = self.config.precision == "bfloat16"
        for part in x.split(self.tokens, dim=1):
            share = part.shape[1] / x.shape[1]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
                loss, losses, fired = stack(part, coefficients=coefficients)
            (loss.float().sum() * share).backward()
            count = count + fired.float()
            for name, value in {"loss": loss, **losses}.items():
                total[name] = total.get(name, 0) + share * value.detach().float()
        assert isinstance(count, Tensor)
        return total, count

    def _advance(self) -> None:
        self.schedule.step()
        for coefficient in self.coefficients.values():
            coefficient.step()
        self.steps += 1

    def _account(self, counts: Tensor, tokens: int) -> None:
        self.silent = torch.where(counts > 0, 0.0, self.silent + 1)
        self.fired += counts
        self.seen += tokens

    def state(self) -> list[dict[str, Tensor]]:
        """What going on needs of each SAE; schedules are functions of the step."""
        own = [
            member_state(stack, optimizer, index)
            for stack, optimizer in zip(self.stacks, self.optimizers, strict=True)
            for index in range(stack.size)
        ]
        return [
            {
                **state,
                "silent": self.silent[index],
                "fired": self.fired[index],
                "seen": torch.tensor(self.seen),
                **scaler_state(self.scalers[index]),
            }
            for index, state in enumerate(own)
        ]

    @torch.no_grad()
    def restore(self, states: Sequence[Mapping[str, Tensor]], step: int) -> None:
        """Make this fresh trainer the one that `state` was taken from after `step` updates."""
        left = list(states)
        for stack, optimizer in zip(self.stacks, self.optimizers, strict=True):
            own, left = left[: stack.size], left[stack.size :]
            for name, parameter in stack.named_member_parameters():
                parameter.copy_(torch.stack([state[f"parameter/{name}"] for state in own]))
            restore_optimizer(stack, optimizer, [dict(state) for state in own], step)
        self.silent = torch.stack([state["silent"] for state in states]).to(self.device)
        self.fired = torch.stack([state["fired"] for state in states]).to(self.device)
        self.seen = int(states[0]["seen"])
        for scaler, state in zip(self.scalers, states, strict=True):
            restore_scaler(scaler, state)
        for _ in range(step):
            self._advance()

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
            fold(sae, self.scalers[index])
        return [sae.eval() for sae in self.saes]


def sizes(saes: int, d_sae: int, batch: int, device: torch.device) -> tuple[int, int]:
    """SAEs and tokens at once."""
    if device.type != "cpu":
        return saes, batch
    return 1, min(batch, max(LEAST_TOKENS, CACHED // d_sae))


def _rate_schedule(config: SAEConfig) -> tuple[torch.optim.Optimizer, Any]:
    """An optimiser of nothing whose learning rate follows SAELens' schedule: those of all stacks take it over."""
    own = config.trainer("cpu")
    assert own.lr_end is not None
    rate = torch.optim.SGD([torch.zeros(1)], own.lr)
    schedule = get_lr_scheduler(
        own.lr_scheduler_name,
        lr=own.lr,
        optimizer=rate,
        warm_up_steps=own.lr_warm_up_steps,
        decay_steps=own.lr_decay_steps,
        training_steps=own.total_training_steps,
        lr_end=own.lr_end,
        num_cycles=own.n_restart_cycles,
    )
    rate.step()  # PyTorch warns of a schedule that is ahead of its optimiser
    return rate, schedule


def _coefficient_schedule(value: TrainCoefficientConfig | float) -> CoefficientScheduler:
    if not isinstance(value, TrainCoefficientConfig):
        value = TrainCoefficientConfig(value, 0)
    return CoefficientScheduler(warm_up_steps=value.warm_up_steps, final_value=value.value)


def _added(parts: Sequence[Stepped]) -> Stepped:
    gradient, losses, count = parts[0]
    for more, more_losses, more_count in parts[1:]:
        gradient = {name: value + more[name] for name, value in gradient.items()}
        losses = {name: value + more_losses[name] for name, value in losses.items()}
        count = count + more_count
    return gradient, losses, count


def _first_axis(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[None] for name, value in values.items()}
