"""What each stage costs at Pythia-70m's size, measured, and the arithmetic from there: `python -m benchmarks.scaling`.

Two members of the exact configuration with random weights, which cost what trained ones cost. One thread, so that
a cost is one core's; `--write docs/results` keeps the tables.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from benchmarks.memory import LENGTH, random_text
from polymorph.alignment.collect import Collected
from polymorph.evidence.evidence import BLOCKS, site_gib
from polymorph.evidence.pairs import PairLabel
from polymorph.models.activations import Activations, activations, coordinates_of, token_losses
from polymorph.models.causal_lm import HookedCausalLM, site_names
from polymorph.models.pretrained.reference import Pretrained, weights_digest
from polymorph.saes.build import training_sae
from polymorph.saes.config import SAEConfig
from polymorph.saes.trainers import trainer_of, training_bytes
from polymorph.studies.ladder.rows import ladder_rows
from polymorph.tasks.config import ProbeConfig

PYTHIA = {
    "vocab_size": 50304,
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "max_position_embeddings": 2048,
}
SITES = site_names([False] * 6)
TOKENS = 4096


@dataclass(frozen=True)
class Cost:
    """Seconds of one unit of a stage."""

    stage: str
    unit: str
    seconds: float


def timed(call: Callable[[], object], times: int = 3) -> float:
    """Median seconds, after one call that is not counted."""
    call()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def model_costs(folder: Path) -> list[Cost]:
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**PYTHIA))
    model.half().save_pretrained(folder / "member")
    digest = weights_digest(dict(Pretrained(str(folder / "member")).model().named_parameters()))
    known = Pretrained(str(folder / "member"), None, digest)
    hooked = HookedCausalLM(known.model()).eval().requires_grad_(False)
    coordinates = coordinates_of(True, 512)
    text = random_text(folder, TOKENS + LENGTH)
    chunk = next(iter(text.probe(ProbeConfig(fit=16, eval=16), "fit", torch.device("cpu"))))
    n = len(chunk.document)
    read = timed(lambda: activations(hooked, chunk, SITES, coordinates))
    losses = timed(lambda: token_losses(hooked, chunk))
    return [
        Cost("read a member and verify its SHA-256", "a member", timed(known.model)),
        Cost("residual streams of seven sites", "1,000 tokens and member", 1000 * read / n),
        Cost("losses of every token", "1,000 tokens and member", 1000 * losses / n),
    ]


def algebra_costs(d: int = 511) -> list[Cost]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, TOKENS, d, generator=generator)
    document, position = torch.arange(TOKENS) // 128, torch.arange(TOKENS) % 128
    chunk = Activations({"site": x}, document, position)
    collected = Collected([(0, 1)], ["site"], BLOCKS)
    fit = timed(lambda: collected.update_fit(chunk))
    score = timed(lambda: collected.update_eval(chunk))
    label = [PairLabel.between(0, 1, 0, 0)]

    def ladder() -> object:
        return ladder_rows(collected.result(), label, "random", fit_documents=32, eval_documents=32)

    return [
        Cost("moments of the fit split, controls too", "1,000 tokens, pair and site", 1000 * fit / TOKENS),
        Cost("moments of the eval split", "1,000 tokens, pair and site", 1000 * score / TOKENS),
        Cost("ladder: both directions, controls, intervals", "pair and site", timed(ladder, 1)),
    ]


def sae_costs(d: int = 511) -> list[Cost]:
    config = SAEConfig(expansion=8, batch_size=TOKENS, options={"l1_coefficient": 5.0})
    trainer = trainer_of([training_sae(config, d, 0, {})], config, torch.device("cpu"))
    batch = torch.randn(1, TOKENS, d, generator=torch.Generator().manual_seed(1))
    return [
        Cost("a step of a standard SAE, eightfold, 4,096 tokens", "SAE", timed(lambda: trainer.step(batch)))
    ]


SHAPES = {
    "Pythia-70m": (6, 512, 70e6),
    "Pythia-410m": (24, 1024, 405e6),
    "Pythia-1.4b": (24, 2048, 1.4e9),
} | {
    "Pythia-6.9b": (32, 4096, 6.9e9),
    "10B": (40, 4608, 10e9),
}
PROBE = 65_536  # tokens a split


def arithmetic(costs: list[Cost]) -> list[str]:
    """From the measured unit costs: forward ∝ parameters, moments ∝ d², the ladder's algebra ∝ d³."""
    unit = {cost.stage: cost.seconds for cost in costs}
    forward = unit["residual streams of seven sites"] / (70e6 - 50304 * 512)
    moments = unit["moments of the fit split, controls too"] + unit["moments of the eval split"]
    ladder = unit["ladder: both directions, controls, intervals"]
    lines = [
        "| model | members | pairs | weights | moments a site | forward | moments | ladder |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for name, (layers, d, parameters) in SHAPES.items():
        for members in (9, 100):
            for scheme, pairs in (("all", members * (members - 1) // 2), ("anchor", members - 1)):
                sites, scale = layers + 1, (d - 1) / 511
                seconds = (
                    members * 2 * PROBE / 1000 * forward * parameters,
                    pairs * sites * PROBE / 1000 * moments * scale**2,
                    pairs * sites * ladder * scale**3,
                )
                held = (
                    f"{4 * parameters * members / 1e9:,.1f} GB",
                    f"{site_gib(members, pairs, d - 1):,.1f} GiB",
                )
                shown = " | ".join((*held, *(_hours(one) for one in seconds)))
                lines.append(f"| {name} | {members} | {scheme} ({pairs:,}) | {shown} |")
    return lines


def _hours(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


def report(costs: list[Cost]) -> str:
    config = SAEConfig(expansion=8)
    held = training_bytes(1, 511, config, torch.device("cpu")) / 2**20
    lines = ["| stage | unit | seconds of one core |", "|---|---|---:|"]
    lines += [f"| {cost.stage} | {cost.unit} | {cost.seconds:.3g} |" for cost in costs]
    lines += ["", f"A standard SAE of 511 → 4,088 in training holds {held:,.0f} MiB.", "", *arithmetic(costs)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        costs = [*model_costs(Path(folder)), *algebra_costs(), *sae_costs()]
    text = report(costs)
    print(text)
    if asked.write is not None:
        machine = f"{platform.machine()}, one thread, torch {torch.__version__}"
        command = "`python -m benchmarks.scaling --write docs/results`"
        head = f"# What the stages cost at Pythia-70m's size\n\n{command} on {machine}.\n\n"
        (asked.write / "scaling.md").write_text(head + text + "\n")


if __name__ == "__main__":
    main()
