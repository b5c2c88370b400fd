"""Time of a training step: stacks of 1, 4 and 10 members against a plain loop over one seed.

    python -m benchmarks.training [--device cuda] [--rounds 7] [--batch 512] [--threads 2] [--sizes 1 4 10]

Prints medians, and ratios taken within each round. On a CPU the plain loop is float32, as a user has it, and stacks are
measured as `trainer.precision=float32`, as `bfloat16`, and uncompiled in groups as `plain float32`; on a GPU both sides
use bfloat16 autocast. `ONEDNN_MAX_CPU_ISA=AVX2` and `ATEN_CPU_CAPABILITY=avx2` together simulate an older processor.
"""

import argparse
import statistics
from collections.abc import Callable

import torch

from benchmarks.plain_loop import Loop
from benchmarks.turns import take_turns
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.tasks.dyck.config import DyckConfig
from polymorph.tasks.dyck.task import Dyck
from polymorph.training.config import OptimizerConfig, TrainerConfig
from polymorph.training.module import StackModule
from polymorph.training.numerics import default_threads, has_bfloat16, prepare_process, step_mode
from polymorph.training.stack import Stack

SIZES = (1, 4, 10)


def plain(batch: int, device: str, threads: int) -> Callable[[], None]:
    """What a user would write; the allocator as PyTorch has it."""
    torch.set_num_threads(threads)
    loop = Loop(0, batch, device, bf16=device == "cuda")

    def step() -> None:
        loop.step()
        _wait(device)

    return step


def stack(
    members: int, precision: str, compiled: bool | str, batch: int, device: str, threads: int
) -> Callable[[], None]:
    """The product's step: data, layout, forward, backward, clipping and update, without Lightning's loop."""
    prepare_process(threads)
    config = DyckTransformerConfig()
    trainer = TrainerConfig(batch_size=batch, max_steps=10**9, precision=precision, compile=compiled)
    mode = step_mode(trainer, torch.device(device), config.flat_ready)
    models = Stack([DyckTransformer(config, seed) for seed in range(members)])
    seeds = list(range(members))
    module = StackModule(models, seeds, Dyck(DyckConfig()), OptimizerConfig(), trainer, mode=mode)
    module.to(device)
    optimizer, batches = module.configure_optimizers(), iter(module.train_dataloader())

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=mode.precision == "bfloat16"):
            loss = module.training_step(next(batches), 0)
        optimizer.zero_grad()
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        module.step += 1
        _wait(device)

    return step


def data(members: int, batch: int, device: str, threads: int) -> Callable[[], None]:
    """The data alone, eight steps' worth a call."""
    prepare_process(threads)
    task, seeds, at_once = Dyck(DyckConfig()), torch.arange(members, device=device), 8

    def step() -> None:
        task.batches(seeds, torch.arange(at_once), batch)
        _wait(device)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    where = (options.batch, options.device, options.threads)
    variants = {"plain": (plain, where), "data": (data, (1, *where))}
    for name, how in _ways(options.device).items():
        variants |= {f"stack {n} {name}": (stack, (n, *how, *where)) for n in options.sizes}
    times = take_turns(variants, options.rounds, options.steps, warm_up=3)
    times["data"] = [seconds / 8 for seconds in times["data"]]
    _report(times, options.device, options.threads)


def _ways(device: str) -> dict[str, tuple[str, bool | str]]:
    """Precision and `trainer.compile` by the name of the variant."""
    if device != "cpu":
        return {"bfloat16": ("bfloat16", "auto")}
    ways: dict[str, tuple[str, bool | str]] = {
        "float32": ("float32", "auto"),
        "plain float32": ("float32", False),
    }
    if has_bfloat16(torch.device(device)):
        ways["bfloat16"] = ("bfloat16", "auto")
    return ways


def _report(times: dict[str, list[float]], device: str, threads: int) -> None:
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} threads"
    print(f"{name}, torch {torch.__version__}; milliseconds, medians of {len(times['plain'])} rounds")
    print("| variant | a step | per member-step | plain / per member-step |\n|---|---|---|---|")
    for variant, seconds in times.items():
        members = int(variant.split()[1]) if variant.startswith("stack") else 1
        ratio = statistics.median(p * members / s for p, s in zip(times["plain"], seconds, strict=True))
        step = 1e3 * statistics.median(seconds)
        print(f"| {variant} | {step:.1f} | {step / members:.1f} | {ratio:.2f} |")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
