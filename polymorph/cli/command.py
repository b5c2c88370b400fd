"""The shell around Hydra: a request is checked whole before anything starts, and exit codes are ours.

What carries it out, and torch with it, is imported once the keys and values of a request are right.
"""

import contextlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.version import setbase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from polymorph.checks import nearest
from polymorph.cli import launchers
from polymorph.cli.config import AnalyzeConfig, TrainConfig, register
from polymorph.cli.ending import DONE, FAILED, PREEMPTED, WRONG, complain
from polymorph.cli.extras import with_logger
from polymorph.cli.reference import FOLDERS, help_text
from polymorph.errors import RequestError, RunError

Config = TypeVar("Config")


def typed(config: DictConfig, kind: type[Config]) -> Config:
    """The composed config as its dataclass, every name, type and value checked; `RequestError` otherwise."""
    try:
        OmegaConf.resolve(config)
        result = OmegaConf.to_object(config)
    except (ValueError, OmegaConfBaseException) as error:
        raise RequestError(_one_line(error)) from error
    assert isinstance(result, kind)
    for key, value, known in _values(result, ""):
        if key.rpartition(".")[2] not in known:  # Hydra lets `+key=…` add anything
            name = key.rpartition(".")[2]
            raise RequestError(f"{key}={value!r}: there is no such key{nearest(name, known)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{key}={value}: a finite number")
    return result


def _values(config: Any, prefix: str) -> Iterable[tuple[str, Any, list[str]]]:
    """Every value in a tree of dataclasses with its dotted key, and the keys that there are beside it."""
    known = [part.name for part in fields(config)]
    for name, value in vars(config).items():
        yield prefix + name, value, known
        if is_dataclass(value):
            yield from _values(value, f"{prefix}{name}.")


def requests(name: str, kind: type[Config], arguments: Sequence[str]) -> list[Config] | None:
    """One typed config for every job that these arguments ask for; None where they only ask Hydra to show."""
    try:
        asked = get_args_parser().parse_args(list(arguments))
    except SystemExit as error:
        raise RequestError("the command line is not Hydra's: see --help") from error
    if asked.help or asked.hydra_help or asked.cfg or asked.info or asked.shell_completion:
        return None
    launchers.check_choice(asked.overrides, asked.multirun)
    jobs = _jobs(asked.overrides) if asked.multirun else [asked.overrides]
    return [typed(_compose(name, overrides), kind) for overrides in jobs]


def _jobs(overrides: list[str]) -> list[list[str]]:
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        return [job for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]
    except HydraException as error:
        raise RequestError(_one_line(error)) from error


def sweep(name: str, arguments: Sequence[str]) -> DictConfig | None:
    """The whole config of a sweep, its launcher in the node `hydra`, as Hydra composes it; None for a single job."""
    asked = get_args_parser().parse_args(list(arguments))
    if not asked.multirun:
        return None
    parsed = OverridesParser.create().parse_overrides(asked.overrides)
    fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
    return _compose(name, fixed, whole=True)


def _compose(name: str, overrides: list[str], whole: bool = False) -> DictConfig:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(FOLDERS[name]), version_base=None):
            return compose(name, overrides, return_hydra_config=whole)
    except (HydraException, OmegaConfBaseException) as error:
        raise RequestError(_explain(error, name)) from error
    finally:
        GlobalHydra.instance().clear()


def _explain(error: Exception, name: str) -> str:
    text = f"{error} {error.__cause__}"
    match = re.search(r"Could not (?:override|append to config:?) '?([\w.@/]+)'?", text)
    if match and ("not in struct" in text or "No match in the defaults list" in text or "not in" in text):
        key = match[1].lstrip("+")
        return f"{key}: there is no such key{nearest(key, _keys(name))}"
    match = re.search(
        r"Could not find '(.+)/([^/']+)'\s+Available options in '.*':((?:\s+\S+)*?)\s+Config search", text
    )
    if match:
        group, value, known = match[1], match[2], match[3].split()
        return f"{group}={value}{nearest(value, known)}: one of {', '.join(known)}"
    return _one_line(error)


def _keys(name: str) -> list[str]:
    return list(_paths(OmegaConf.to_container(_compose(name, []), resolve=False), ""))


def _paths(node: Any, prefix: str) -> Iterable[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield prefix + str(key)
        yield from _paths(value, f"{prefix}{key}.")


def _one_line(error: Exception) -> str:
    cause: BaseException | None = error.__cause__
    text = str(error) if cause is None or str(cause) in str(error) else f"{error} ({cause})"
    key = re.search(r"full_key: (\S+)", text)
    lines = [line.strip() for line in text.splitlines()]
    kept = [
        line
        for line in lines
        if line and not line.startswith(("full_key:", "object_type=", "reference_type="))
    ]
    line = (f"{key[1]}: " if key else "") + " ".join(kept)
    return line + ")" * (line.count("(") - line.count(")"))


KINDS: Mapping[str, type[Any]] = {"train": TrainConfig, "analyze": AnalyzeConfig}
"""What a request is, by its command; that of `analyze` has the options of the studies beside its own."""


class Module(Protocol):
    """What `polymorph.cli.train` and `polymorph.cli.analyze` are to the shell."""

    def check(self, jobs: list[Any]) -> None:
        """Refuse, before the first job and without writing, what cannot be right (`RequestError`)."""
        ...

    def perform(self, job: Any, before: Sequence[Any]) -> Any:
        """Carry out one job, after those of this process that ended as `before` says; how it ended."""
        ...

    def finish(self, jobs: list[Any], endings: Sequence[Any]) -> int:
        """The exit status. Jobs that a launcher gave to other processes have no ending here."""
        ...


def main(name: str, arguments: Sequence[str]) -> int:
    """Check every job, let Hydra run them, and read the outcome from what was recorded."""
    if {"--help", "-h"} & set(arguments):
        print(help_text(name), end="")
        return DONE
    arguments = with_logger(arguments)
    logging.getLogger("hydra").setLevel(logging.WARNING)
    register()
    signals: list[int] = []
    try:
        jobs: list[Any] | None = requests(name, KINDS[name], arguments)
        if jobs is None:
            return _shown(name, arguments)
        module = cast(Module, import_module(f"polymorph.cli.{name}"))
        module.check(jobs)
        if (whole := sweep(name, arguments)) is not None:
            signals = launchers.check(whole)  # last, since it may have to connect to a cluster
    except RequestError as error:
        complain(name, error)
        return WRONG
    except RunError as error:  # what is there is damaged
        complain(name, error)
        return FAILED
    endings: list[Any] = []

    def job(config: DictConfig) -> None:
        endings.append(module.perform(typed(config, KINDS[name]), tuple(endings)))

    with contextlib.suppress(SystemExit):
        _run(name, arguments, job)
    status = module.finish(jobs, endings)
    return PREEMPTED if signals and status != DONE else status


def _shown(name: str, arguments: Sequence[str]) -> int:
    """What Hydra itself is asked to show."""
    try:
        _run(name, arguments, lambda config: None)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    return DONE


def _run(name: str, arguments: Sequence[str], job: Callable[[DictConfig], None]) -> None:
    """As `hydra.main` does, of arguments that need not be those of the process."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "0")
    setbase(None)
    parser = get_args_parser()
    _run_hydra(parser.parse_args(list(arguments)), parser, job, str(FOLDERS[name]), name)
