"""Peak memory of the ladder against the number of tokens: `python -m benchmarks.memory`.

Two random GPT-NeoX members read a text of random tokens that lies in a mapped file; a process of its own for each
number of tokens, since a peak never falls again.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from polymorph.alignment.collect import collect
from polymorph.evidence.evidence import BLOCKS
from polymorph.evidence.pairs import PairLabel
from polymorph.models.activations import ModelActivations, coordinates_of
from polymorph.models.gpt_neox.config import GPTNeoXArchitecture
from polymorph.studies.ladder.rows import ladder_rows
from polymorph.tasks.config import ProbeConfig
from polymorph.tasks.text.config import TextConfig
from polymorph.tasks.text.text_task import Text, Tokens

VOCABULARY, CONTEXT, LENGTH = 2048, 128, 257  # a document gives two windows
SIZES = (100_000, 1_000_000)


def random_text(folder: Path, tokens: int) -> Text:
    """As many tokens in each of the probe's splits, in documents of equal length."""
    documents = -(-tokens // (LENGTH - 1))
    path = folder / "tokens"
    whole = np.memmap(path, np.uint16, "w+", shape=2 * documents * LENGTH)
    draw = np.random.default_rng(0)
    for start in range(0, len(whole), LENGTH):
        whole[start : start + LENGTH] = draw.integers(1, VOCABULARY, LENGTH)
    whole.flush()
    kept = Tokens(
        tokens=np.memmap(path, np.uint16, "r"),
        starts=np.arange(0, len(whole) + 1, LENGTH),
        splits={"fit": (0, documents), "eval": (documents, 2 * documents)},
        vocab_size=VOCABULARY,
        eos=0,
        facts={},
        tokenizer=path,
    )
    return Text(TextConfig(context=CONTEXT, windows=2), kept)


def peak(tokens: int) -> int:
    """Bytes that this process has held at most, after the ladder of two members on so many tokens a split."""
    torch.set_num_threads(1)
    architecture = GPTNeoXArchitecture(n_layers=2, d_model=64, n_heads=2, d_mlp=128, n_ctx=CONTEXT)
    weights = [dict(architecture.untrained(seed).named_parameters()) for seed in (0, 1)]
    models = [architecture.hooked(own, None, {}).requires_grad_(False) for own in weights]
    with tempfile.TemporaryDirectory() as folder:
        text = random_text(Path(folder), tokens)
        documents = text.tokens.documents("fit")
        probe = ProbeConfig(fit=documents, eval=documents)
        coordinates = coordinates_of(architecture.layer_norm, architecture.d_model)
        cpu = torch.device("cpu")
        source = ModelActivations(models, architecture.sites, text, probe, cpu, coordinates)
        moments = collect(source, [(0, 1)], BLOCKS, seed=0)
        rows = ladder_rows(
            moments.result(),
            [PairLabel.between(0, 1, 0, 0)],
            "random",
            fit_documents=documents,
            eval_documents=documents,
        )
    assert max(row.n_tokens or 0 for row in rows) >= tokens
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(tokens: int) -> int:
    """`peak` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", str(tokens)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    if len(sys.argv) > 1:
        print(peak(int(sys.argv[1])))
        return
    found = {tokens: measured(tokens) for tokens in SIZES}
    for tokens, held in found.items():
        print(f"{tokens:>9,} tokens a split: {held / 2**20:,.0f} MiB at most")
    print(f"ratio: {found[SIZES[1]] / found[SIZES[0]]:.3f}")


if __name__ == "__main__":
    main()
