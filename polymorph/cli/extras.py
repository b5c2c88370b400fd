"""What a command needs beyond the core of the package, and the line that installs it."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

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
            return f"{module} is not installed; {install_line(extra)}, or polymorph[all] for all"
    return None


def install_line(extra: str) -> str:
    return f'pip install "polymorph[{extra}]"'


def is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False


def installed_version(distribution: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def with_logger(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, with CSV files for a logger where W&B is the default and not installed."""
    chosen = any(argument.startswith(("logger=", "logger.kind=")) for argument in arguments)
    if chosen or is_installed("wandb"):
        return list(arguments)
    print(f"wandb is not installed, so numbers go to CSV files (logger=csv); {install_line('wandb')}")
    return [*arguments, "logger=csv"]
