"""What a command needs beyond the core of the package, and the line that installs it."""

EXTRAS = {
    "train": ("hydra", "omegaconf", "lightning", "transformer_lens", "matplotlib", "jinja2", "rich", "PIL"),
    "saes": ("sae_lens",),
    "lm": ("transformers", "tokenizers", "datasets", "huggingface_hub", "pyarrow", "zstandard"),
    "wandb": ("wandb", "wandb_workspaces"),
}
"""The modules that an extra of the package brings."""


def missing_line(error: ModuleNotFoundError) -> str | None:
    """What to install so that the module is there; None for a module that no extra brings."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f'{module} is not installed; pip install "polymorph[{extra}]", or "polymorph[all]" for all'
    return None
