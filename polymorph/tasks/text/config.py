"""The options of the task `text`: where its documents come from, and how they are told apart into splits."""

from dataclasses import asdict, dataclass, field
from typing import Any

from polymorph.checks import at_least, one_of

TextSplits = ("train", "sae", "evaluation", "fit", "eval")
SOURCES = ("docstrings", "files", "hub")
TRAINED = "train"  # the tokenizer that is trained on the text itself
BYTES = 256  # what a byte-level tokenizer begins with; the end of a document comes on top


@dataclass
class TextShares:
    """What share of the documents goes into each split; a document's own hash decides which."""

    train: float = 0.7
    """For training, and for the tokenizer if it is trained here."""
    sae: float = 0.15
    """For training SAEs."""
    evaluation: float = 0.03
    """For the members' evaluation while they train."""
    fit: float = 0.06
    """For the probe's documents on which maps are fitted."""
    eval: float = 0.06
    """For the probe's documents on which they are scored."""

    def __post_init__(self) -> None:
        at_least("task.shares", self, train=0, sae=0, evaluation=0, fit=0, eval=0)
        total = sum(asdict(self).values())
        if not abs(total - 1) <= 1e-9:
            raise ValueError(f"task.shares={asdict(self)}: they sum to {total:.12g}, and must to 1")


@dataclass
class TextConfig:
    """The task. A text is prepared once a cohort; `context` and `windows` may differ on the same text."""

    name: str = "text"
    """Chosen as `task=text`, `text_files` or `pile`."""
    source: str = "docstrings"
    """docstrings of installed packages, files on disk, or a dataset of the hub."""
    packages: list[str] = field(
        default_factory=lambda: [
            *("torch", "numpy", "scipy", "polars", "matplotlib"),
            *("transformers", "lightning", "wandb", "sae_lens", "transformer_lens"),
        ]
    )
    """For docstrings: the packages, under the names by which they are imported."""
    files: list[str] = field(default_factory=list)
    """For files: paths or patterns of .jsonl, .jsonl.zst, .txt and .parquet."""
    dataset: str = ""
    """For hub: the dataset, as owner/name."""
    dataset_revision: str | None = None
    """For hub: its branch, tag or commit; the newest by default, and its commit is recorded."""
    dataset_config: str | None = None
    """For hub: the dataset's configuration, where it has several."""
    dataset_split: str = "train"
    """For hub: the dataset's own split that is read; the task's splits are drawn from it."""
    text_column: str = "text"
    """Which column, or key of a line, holds the text; not for docstrings and .txt."""
    max_documents: int | None = None
    """Reading stops after so many documents."""
    max_tokens: int | None = None
    """Reading stops after the document that reaches so many tokens."""
    min_characters: int = 1
    """Shorter documents are left out."""
    tokenizer: str = TRAINED
    """"train" trains one on the training split; otherwise a local folder, or a hub repository[@revision]."""
    vocab_size: int = 2048
    """At most so many tokens in the tokenizer that is trained here."""
    context: int = 128
    """Tokens that the model reads at once."""
    windows: int = 4
    """At most so many windows of a document are in the probe."""
    shares: TextShares = field(default_factory=TextShares)
    seed: int = 0
    """Decides which document goes into which split."""

    def __post_init__(self) -> None:
        one_of("task.source", self.source, SOURCES)
        at_least("task", self, context=1, windows=1, min_characters=1, seed=0)
        for key in ("max_documents", "max_tokens"):
            if getattr(self, key) is not None:
                at_least("task", self, **{key: 1})
        self._check_source()
        if not self.tokenizer:
            raise ValueError(f"task.tokenizer='': {TRAINED}, a local folder, or a hub repository")
        if self.tokenizer == TRAINED:
            at_least("task", self, vocab_size=BYTES + 1)
            if self.shares.train == 0:
                raise ValueError(
                    f"task.shares.train=0.0, task.tokenizer={TRAINED}: there is nothing to train one on; "
                    "give a share above 0, or a tokenizer"
                )

    def _check_source(self) -> None:
        needed = {"docstrings": "packages", "files": "files", "hub": "dataset"}
        if not getattr(self, needed[self.source]):
            key = needed[self.source]
            raise ValueError(f"task.{key}={getattr(self, key)!r}: task.source={self.source} needs task.{key}")
        for source, key in (("files", "files"), ("hub", "dataset")):
            if source != self.source and getattr(self, key):
                raise ValueError(
                    f"task.{key}={getattr(self, key)!r}: not read with task.source={self.source}; "
                    f"leave it out, or give task.source={source}"
                )
        if self.source == "hub" and self.tokenizer == TRAINED and self.max_documents is None:
            raise ValueError(
                f"task.max_documents=None: task.tokenizer={TRAINED} reads all documents before it counts a "
                "token; with task.source=hub say how many"
            )

    def deciding(self) -> dict[str, Any]:
        """All that decides the tokens and their splits, as plain data; what this source does not read is not in it."""
        read = {
            "docstrings": ["packages"],
            "files": ["files", "text_column"],
            "hub": ["dataset", "dataset_revision", "dataset_config", "dataset_split", "text_column"],
        }
        of_sources = {key for keys in read.values() for key in keys}
        idle = {"name", "context", "windows"} | (of_sources - set(read[self.source]))
        if self.tokenizer != TRAINED:
            idle.add("vocab_size")
        return {key: value for key, value in asdict(self).items() if key not in idle}
