"""SAEs trained as one stack, against SAELens training one after another on the same activations.

    python -m benchmarks.saes [--saes 15] [--d 64] [--expansion 8] [--batch 4096] [--architecture standard]
                              [--rounds 5] [--steps 5] [--device cuda] [--quick]

Same SAEs, batches and losses: the losses of the last step are compared, and a difference above 1e-4 is an error.
SAELens has all threads, and again one, and the better of the two counts; ours has as many workers. Every round
measures all of them in turn.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from polymorph.saes.build import training_sae
from polymorph.saes.config import SAEConfig
from polymorph.saes.trainers import StackedTrainer
from polymorph.training.numerics import default_threads, prepare_process

OPTIONS = {"standard": {"l1_coefficient": 0.064}, "topk": {"k": 16}, "gated": {"l1_coefficient": 0.064}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--saes", type=int, default=15)
    parser.add_argument("--d", type=int, default=64)
    parser.add_argument("--expansion", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--architecture", default="standard", choices=OPTIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    options = parser.parse_args()
    if options.quick:
        options.saes, options.batch, options.rounds, options.steps = 3, 512, 1, 2
    print(f"{default_threads()} threads, {options.device}, load average {os.getloadavg()[0]:.2f}")
    print(vars(options))
    compare(options)


def compare(options: argparse.Namespace) -> None:
    """SAE-steps a second of each, and the ratio within every round."""
    config = SAEConfig(
        architecture=options.architecture,
        options=OPTIONS[options.architecture],
        expansion=options.expansion,
        batch_size=options.batch,
    )
    device = torch.device(options.device)
    x = batches(options.saes, options.steps, options.batch, options.d).to(device)
    threads = default_threads()
    seen: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        prepare_process(threads)
        lens, theirs = one_after_another(x, config, device)
        prepare_process(1)
        alone, _ = one_after_another(x, config, device)
        stack, ours = as_one_stack(x, config, device, threads)
        worst = float(((ours - theirs) / theirs).abs().max())
        if worst > 1e-4:
            raise AssertionError(f"losses differ from SAELens' by {worst:.1e} of themselves")
        for name, seconds in (("SAELens", lens), ("SAELens, one thread", alone), ("stack", stack)):
            seen.setdefault(name, []).append(options.saes * options.steps / seconds)
    for name, rates in seen.items():
        print(f"  {name:20} {statistics.median(rates):8.1f} SAE-steps a second")
    ratios = [
        s / max(a, b)
        for s, a, b in zip(seen["stack"], seen["SAELens"], seen["SAELens, one thread"], strict=True)
    ]
    print(
        f"  stack / the better of SAELens': {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"losses equal to {worst:.0e}"
    )


def one_after_another(x: Tensor, config: SAEConfig, device: torch.device) -> tuple[float, Tensor]:
    """Seconds of all steps of all SAEs, and the last loss of each; a step before them warms up."""
    own = config.trainer(str(device))
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


def as_one_stack(x: Tensor, config: SAEConfig, device: torch.device, workers: int) -> tuple[float, Tensor]:
    """The same, as a stack."""
    saes = [training_sae(config, x.shape[-1], i, {}) for i in range(x.shape[1])]
    trainer = StackedTrainer(saes, config, device, workers if device.type == "cpu" else 1)

    def train() -> Tensor:
        for batch in x:
            measured = trainer.step(batch)
        return measured["loss"]

    trainer.step(x[0])
    return timed(train)


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


if __name__ == "__main__":
    main()
