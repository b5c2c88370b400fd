"""SAEs trained as one stack, against SAELens training one after another on the same activations.

    python -m benchmarks.saes [--saes 15] [--d 64] [--expansion 8] [--batch 4096] [--architecture standard]
                              [--rounds 5] [--steps 5] [--device cuda] [--quick]
    python -m benchmarks.saes --to-the-end 1500 [--seeds 3] [--batch 4096] [--architecture standard]

Same SAEs, batches and losses; SAELens is in float32, as a user has it, the stack in float32 and in bfloat16 with
compiled passes, and in float32 without them. The losses of the last step are compared: a difference from SAELens'
above 1e-4 of the loss in float32, or 2e-2 in bfloat16, is an error. SAELens has all threads, and again one, and the
better of the two counts; ours has as many workers. Every round measures all of them in turn.

`--to-the-end` trains SAEs of several seeds for so many steps in both precisions, and prints the explained variance
and the L0 of each on activations that none was trained on.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from sae_lens import TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from polymorph.saes.build import training_sae
from polymorph.saes.config import SAEConfig, SAEOptimizerConfig
from polymorph.saes.trainers import trainer_of
from polymorph.training.numerics import default_threads, has_bfloat16, prepare_process

OPTIONS = {"standard": {"l1_coefficient": 0.064}, "topk": {"k": 16}, "gated": {"l1_coefficient": 0.064}}
SPARSE = 0.3
"""The coefficient of L1 with which an SAE of `sparse_codes` ends with few features a token."""
LARGEST = {"float32": 1e-4, "bfloat16": 2e-2}
WAYS = {
    "stack, float32, eager": ("float32", False),
    "stack, float32": ("float32", "auto"),
    "stack, bfloat16": ("bfloat16", "auto"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--saes", type=int, default=15)
    parser.add_argument("--d", type=int, default=64)
    parser.add_argument("--expansion", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--architecture", default="standard", choices=OPTIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--to-the-end", type=int, help="steps of a whole training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    options = parser.parse_args()
    if options.quick:
        options.saes, options.batch, options.rounds, options.steps = 3, 512, 1, 2
    print(f"{default_threads()} threads, {options.device}, load average {os.getloadavg()[0]:.2f}")
    print(vars(options))
    if options.to_the_end is not None:
        train_to_the_end(options)
    else:
        compare(options)


def config_of(options: argparse.Namespace) -> SAEConfig:
    return SAEConfig(
        architecture=options.architecture,
        options=dict(OPTIONS[options.architecture]),
        expansion=options.expansion,
        batch_size=options.batch,
    )


def compare(options: argparse.Namespace) -> None:
    """SAE-steps a second of each, and the ratio within every round."""
    config, device = config_of(options), torch.device(options.device)
    x = batches(options.saes, options.steps, options.batch, options.d).to(device)
    rates: dict[str, list[float]] = {}
    worst: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, seconds, difference in measured_round(x, config, device):
            rates.setdefault(name, []).append(options.saes * options.steps / seconds)
            worst[name] = max(difference, worst.get(name, 0.0))
    for name, own in rates.items():
        print(f"  {name:22} {statistics.median(own):8.1f} SAE-steps a second")
    best = [max(pair) for pair in zip(rates["SAELens"], rates["SAELens, one thread"], strict=True)]
    for name in WAYS:
        if name in rates:
            ratios = [own / other for own, other in zip(rates[name], best, strict=True)]
            print(
                f"  {name} / the better of SAELens': {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}); losses equal to {worst[name]:.0e}"
            )


def measured_round(x: Tensor, config: SAEConfig, device: torch.device) -> list[tuple[str, float, float]]:
    """Name, seconds, and the largest relative difference of a last loss from SAELens', of every way."""
    prepare_process(default_threads())
    seconds, theirs = one_after_another(x, config, device)
    found = [("SAELens", seconds, 0.0)]
    prepare_process(1)
    found.append(("SAELens, one thread", one_after_another(x, config, device)[0], 0.0))
    for name, (precision, compile_) in WAYS.items():
        if precision == "bfloat16" and not has_bfloat16(device):
            continue
        seconds, ours = as_one_stack(x, replace(config, precision=precision, compile=compile_), device)
        worst = float(((ours - theirs) / theirs).abs().max())
        if worst > LARGEST[precision]:
            raise AssertionError(f"{name}: losses differ from SAELens' by {worst:.1e} of themselves")
        found.append((name, seconds, worst))
    return found


def one_after_another(x: Tensor, config: SAEConfig, device: torch.device) -> tuple[float, Tensor]:
    """Seconds of all steps of all SAEs, and the last loss of each; a step before them warms up."""
    own = replace(config, precision="float32").trainer(str(device))
    trainers = [
        SAETrainer(own, training_sae(config, x.shape[-1], i, {}).to(device), iter(()))
        for i in range(x.shape[1])
    ]

    def train() -> Tensor:
        last = []
        for index, trainer in enumerate(trainers):
            for batch in x:
                out = trainer.step(batch[index])
                trainer.n_training_steps += 1
            last.append(out.loss.detach())
        return torch.stack(last)

    for index, trainer in enumerate(trainers):
        trainer.step(x[0, index])
    return timed(train)


def as_one_stack(x: Tensor, config: SAEConfig, device: torch.device) -> tuple[float, Tensor]:
    """The same, as a stack."""
    trainer = trainer_of(made(config, x.shape[-1], x.shape[1]), config, device)

    def train() -> Tensor:
        for batch in x:
            measured = trainer.step(batch)
        return measured["loss"]

    trainer.step(x[0])
    result = timed(train)
    trainer.finish()  # ends its threads
    return result


def made(config: SAEConfig, d: int, n: int) -> list[TrainingSAE]:
    return [training_sae(config, d, seed, {}) for seed in range(n)]


def timed(action: Callable[[], Tensor]) -> tuple[float, Tensor]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def batches(saes: int, steps: int, n: int, d: int) -> Tensor:
    """Activations [steps saes n d] of low effective dimension with a mean, others for every SAE."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(saes, d, d, generator=generator) * torch.linspace(0, -3, d).exp()[:, None] / d**0.5
    return torch.randn(steps, saes, n, d, generator=generator) @ mixing + 0.5


def train_to_the_end(options: argparse.Namespace) -> None:
    """Explained variance and L0 by precision and seed, all seeds on the same activations."""
    prepare_process(1)
    config = replace(config_of(options), steps=options.to_the_end, optimizer=SAEOptimizerConfig(lr=1e-3))
    if "l1_coefficient" in config.options:
        config.options["l1_coefficient"] = SPARSE
    device = torch.device(options.device)
    for precision in LARGEST:
        own = replace(config, precision=precision)
        trainer = trainer_of(made(own, options.d, options.seeds), own, device)
        draw = sparse_codes(options.d)
        start = time.perf_counter()
        for _ in range(own.steps):
            trainer.step(draw(options.batch).to(device).expand(options.seeds, -1, -1))
        seconds = time.perf_counter() - start
        x = draw(20_000)
        for seed, sae in enumerate(trainer.finish()):
            print(f"  {precision:9} seed {seed}: EV {explained(sae, x):.5f}, L0 {active(sae, x):.3f}")
        print(f"  {precision:9} {seconds:.1f} s")


def sparse_codes(d: int) -> Callable[[int], Tensor]:
    """Batches of sums of few of 4 d directions, with a little noise and a mean: what an SAE can find."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(4 * d, d, generator=generator), dim=-1)
    often = 12 * torch.linspace(0, -3, 4 * d).exp() / torch.linspace(0, -3, 4 * d).exp().sum()

    def draw(n: int) -> Tensor:
        on = torch.rand(n, 4 * d, generator=generator) < often
        strength = 0.5 + torch.rand(n, 4 * d, generator=generator)
        noise = 0.03 * torch.randn(n, d, generator=generator)
        return (on * strength) @ directions + noise + 0.5

    return draw


@torch.no_grad()
def explained(sae: TrainingSAE, x: Tensor) -> float:
    return float(1 - (sae(x) - x).square().sum() / (x - x.mean(0)).square().sum())


@torch.no_grad()
def active(sae: TrainingSAE, x: Tensor) -> float:
    return float((sae.encode(x) != 0).sum(-1).float().mean())


if __name__ == "__main__":
    main()
