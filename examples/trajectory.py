"""How do members turn relative to one another while they train? From a cohort to a table of one's own.

Trains two short seeds, compares them at every checkpoint, and reads the tables of the analysis: every study writes one
tidy Parquet file (docs/tables.md).

    python examples/trajectory.py [folder]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parent.parent


def run(command: str, *arguments: str) -> None:
    """One of the two commands, as on a shell."""
    subprocess.run([sys.executable, str(ROOT / f"{command}.py"), *arguments, "logger=none"], check=True)


def main(folder: Path) -> None:
    cohort = folder / "short"
    run(
        "train",
        "seed=[0,1]",
        f"cohort.root={folder}",
        "cohort.name=short",
        *("trainer.max_steps=32", "trainer.progress=false", "optimizer.warmup_steps=10"),
        *("probe.fit=64", "probe.eval=64", "trainer.eval_every=32"),
    )
    run("analyze", f"cohort={cohort}", "study=[ladder]")

    ladder = pl.read_parquet(cohort / "analysis" / "default" / "ladder.parquet").filter(
        pl.col("site") == "blocks.1.hook_resid_mid",
        pl.col("source_step") == pl.col("target_step"),
        pl.col("role") == "estimate",
        pl.col("source") < pl.col("target"),
    )
    turned = ladder.filter(metric="frobenius_from_identity").select("target_step", turned="value")
    r2 = ladder.filter(metric="r2").pivot("map", index="target_step", values="value")
    shown = r2.join(turned, on="target_step").sort("target_step")
    print(
        "blocks.1.hook_resid_mid, seed 0 to seed 1: R² of maps, and how far R is from I (Haar: about √128 = 11.3)"
    )
    print(shown.select("target_step", "identity", "orthogonal", "affine", "turned"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
