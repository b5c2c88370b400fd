"""Cost of the cross-seed callback at one checkpoint, against the training between two checkpoints.

    python -m benchmarks.comparison [--members 10] [--device cuda]

Cadence and probe are those of `experiment=paper`: 2,000 steps of 512 sequences, 1,024 fit and eval documents.
The members are at their initial weights, which costs what trained ones cost.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.training import stack
from polymorph.models.dyck_transformer.config import DyckTransformerConfig
from polymorph.models.dyck_transformer.model import DyckTransformer
from polymorph.pipeline.comparison import Comparison
from polymorph.pipeline.pair_cache import PairCache
from polymorph.pipeline.pair_studies import BRIEF_STUDIES, LADDER
from polymorph.store import Cohort
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.dyck.task import Dyck
from polymorph.training.config import CheckpointsConfig

CADENCE, BATCH = CheckpointsConfig().every, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    train = stack(options.members, BATCH, options.device)
    train()
    steps, comparisons = [], []
    for _ in range(options.rounds):
        steps.append(_seconds(train))
        comparisons.append(_compared(options.members, options.device))
    share = statistics.median(c / (CADENCE * s) for c, s in zip(comparisons, steps, strict=True))
    print(
        f"{options.members} members on {options.device}, {torch.get_num_threads()} threads: "
        f"a comparison takes {statistics.median(comparisons):.1f} s, a step {statistics.median(steps):.3f} s; "
        f"the callback is {100 * share:.2f} % of {CADENCE:,} steps"
    )


def _compared(members: int, device: str) -> float:
    """Seconds for all pairs and ceilings of one checkpoint, reading and publishing included."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = Cohort.create(Path(folder) / "cohort", {"architecture": {}, "task": {}, "probe": {}})
        config = DyckTransformerConfig()
        for seed in range(members):
            for step in (1, 2):
                weights = dict(DyckTransformer(config, 100 * seed + step).named_parameters())
                cohort.member(seed).publish_step(step, {k: v.data for k, v in weights.items()}, {})
        where = torch.device(device)
        comparison = Comparison(cohort, Dyck(), config, ProbeConfig(), where)
        return _seconds(lambda: _callback(comparison))


def _callback(comparison: Comparison) -> None:
    """What it computes at a checkpoint if nothing more is asked for."""
    pairs = comparison.pairs_at(2)
    for study in (LADDER, BRIEF_STUDIES["pairing"]):
        PairCache(comparison).rows(study, pairs)


def _seconds(action: object) -> float:
    start = time.perf_counter()
    assert callable(action)
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
