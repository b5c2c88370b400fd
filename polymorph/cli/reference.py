"""Every key of the configuration with its sentence, read from the dataclasses and the YAML that stand behind it.

`python -m polymorph.cli.reference` prints docs/configuration.md; `--help` of both commands is made of the same.
"""

import ast
import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from polymorph.cli.config import TrainConfig, analyze_schema
from polymorph.models.registry import TRAINED
from polymorph.presets import CONF
from polymorph.tasks.registry import TASKS

FOLDERS = {"train": CONF, "analyze": CONF / "analyze"}
"""Where the YAML of each command is."""
WIDTH = 100
CONFIGS: Mapping[str, Callable[[], type]] = {"train": lambda: TrainConfig, "analyze": analyze_schema}
"""The dataclass of each command; that of an analysis is made from the studies that there are."""
GROUPS: Mapping[str, Sequence[str]] = {
    "train": ("experiment", "task", "model", "cohort", "sae", "logger", "hydra/launcher"),
    "analyze": ("logger",),
}
"""Configuration groups, `group=option`, in the order of how often they are wanted."""
OF_GROUPS: Mapping[str, Mapping[str, type]] = {
    "task": {name: kind.config for name, kind in TASKS.items()},
    "model": TRAINED,
}
"""Keys whose own keys depend on the option that is chosen."""
INTRODUCTION: Mapping[str, str] = {
    "train": """\
Train the members of a cohort, or their SAEs, or take in models that exist.

  python train.py seed=[0,1,2]                               three seeds as one stack, in a few minutes
  python train.py -m seed=0,1,2 hydra/launcher=joblib trainer.threads=1     one process a seed
  python train.py experiment=paper seed=[100,101,102,103,104]               the paper's cohort
  python train.py stage=sae cohort.name=dyck3-quick-independent             SAEs of all its members
  python train.py cohort=pythia70m_seeds stage=import                       nine seeds of Pythia-70m

The same command again goes on where it stopped. Then: python analyze.py cohort=<name>
Exit status: 0 done, 1 a run failed, 2 the request was wrong (nothing was written), 143 preempted.""",
    "analyze": """\
Compare the members of a cohort: tables, claims, figures and report.html, below its analysis/<name>.

  python analyze.py cohort=dyck3-quick-independent                          everything that applies
  python analyze.py cohort=dyck3-quick-independent study=[ladder,haar] name=two step=last
  python analyze.py cohort=planted:rotated planted.d=32                     a cohort whose truth is known

Exit status: 0 done, 1 it failed, 2 the request was wrong (nothing was written).""",
}


@dataclass(frozen=True)
class Key:
    """One key of the configuration: its dotted name, its type and default as they are written, what it means."""

    name: str
    kind: str
    default: str
    says: str


@dataclass(frozen=True)
class Section:
    """The keys of one dataclass."""

    name: str
    says: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Option:
    """One file of a configuration group."""

    name: str
    says: str


def sections(kind: type, name: str = "") -> Iterator[Section]:
    """The keys of a dataclass itself, then those of the dataclasses inside it."""
    says = sentences(kind)
    own = [part for part in fields(kind) if not is_dataclass(part.type)]
    prefix = f"{name}." if name else ""
    keys = (
        Key(prefix + part.name, _kind(part), _default(part), says.get(part.name, ""))
        for part in own
        if part.name not in OF_GROUPS or name
    )
    yield Section(name, _one_line(inspect.getdoc(kind) or ""), tuple(keys))
    for part in fields(kind):
        if isinstance(part.type, type) and is_dataclass(part.type):
            yield from sections(part.type, prefix + part.name)


def sentences(kind: type) -> dict[str, str]:
    """Field → the docstring that stands under it, in one line; those of base classes and of its parts too."""
    found: dict[str, str] = {}
    base: type
    for base in (*getattr(kind, "PARTS", ()), *reversed(kind.__mro__)):
        if is_dataclass(base) and "PARTS" not in vars(base):  # which is made, and has no source of its own
            (made,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(made, ast.ClassDef)
            for field, below in zip(made.body, made.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    found[field.target.id] = _docstring(below)
    return found


def _docstring(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return _one_line(str(node.value.value))
    return ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _kind(part: Field[Any]) -> str:
    kind = part.type if isinstance(part.type, str) else getattr(part.type, "__name__", str(part.type))
    return str(part.type) if "[" in str(part.type) or "|" in str(part.type) else kind


def _default(part: Field[Any]) -> str:
    if part.default is not MISSING:
        return _plain(part.default)
    return "" if part.default_factory is MISSING else _plain(part.default_factory())


def _plain(value: Any) -> str:
    """As it is written on a command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_plain, value))}]"
    return "" if value == "???" else str(value)


def options(command: str, group: str) -> list[Option]:
    """The files of a group, each with the first sentence of the comment at its head."""
    files = sorted((FOLDERS[command] / group).glob("*.yaml"))
    return [Option(path.stem, _comment(path.read_text(encoding="utf-8"))) for path in files]


def _comment(text: str) -> str:
    """The first sentence of a file's first comment, up to an indented example; not what is an instruction to Hydra."""
    lines = [line for line in text.splitlines() if not line.startswith("# @package")]
    head = itertools.takewhile(lambda line: line.startswith("# ") and not line.startswith("#  "), lines)
    first = " ".join(line.removeprefix("# ").strip() for line in head).partition(". ")[0]
    return first.rstrip(".:")


def help_text(command: str) -> str:
    """What `--help` prints: how it is called, the groups, and every key with its sentence."""
    lines = [INTRODUCTION[command], "", "Groups, chosen as group=option:"]
    for group in GROUPS[command]:
        lines += ["", f"  {group}"]
        lines += [line for one in options(command, group) for line in _columns(one.name, one.says, 24)]
    lines += ["", "Keys, given as key=value (docs/configuration.md has them as tables):"]
    for section in all_sections(command):
        lines += ["", f"  {section.name or 'the request itself'}"]
        for key in section.keys:
            name = f"{key.name}={key.default}" if key.default else key.name
            lines += _columns(name, key.says, 44)
    return "\n".join(
        [*lines, "", "--cfg job prints the configuration as it is composed; -m sweeps over values.\n"]
    )


def _columns(name: str, says: str, at: int) -> list[str]:
    """A name, and beside it what it means, wrapped; below it where the name is long."""
    wrapped = textwrap.wrap(says, WIDTH - at) or [""]
    first = f"    {name}"
    if len(first) + 2 > at and says:
        return [first, *(" " * at + line for line in wrapped)]
    return [f"{first:<{at}}{wrapped[0]}".rstrip(), *(" " * at + line for line in wrapped[1:])]


def all_sections(command: str) -> Iterator[Section]:
    """Of a command, with the keys of every task and model that can be chosen."""
    yield from sections(CONFIGS[command]())
    if command == "train":
        for group, kinds in OF_GROUPS.items():
            for option, kind in kinds.items():
                for section in sections(kind, group):
                    yield Section(f"{group} ({option})", section.says, section.keys)


def document() -> str:
    """docs/configuration.md."""
    parts = ["# Configuration", "", *textwrap.wrap(_HEAD, 110)]
    for command in CONFIGS:
        parts += ["", f"## {command}.py"]
        for group in GROUPS[command]:
            parts += ["", f"### {group}=…", "", "| option | what |", "|---|---|"]
            parts += [f"| `{one.name}` | {_cell(one.says)} |" for one in options(command, group)]
        for section in all_sections(command):
            parts += ["", f"### {section.name or 'The request itself'}", "", section.says, ""]
            parts += ["| key | type | default | meaning |", "|---|---|---|---|"]
            parts += [_table_row(key) for key in section.keys]
    return "\n".join(parts) + "\n"


_HEAD = (
    "Made by `python -m polymorph.cli.reference` from the dataclasses behind the YAML; a test keeps it so. Defaults "
    "are those of the dataclasses: a preset may set others, and `--cfg job` prints what a command comes to. A key that "
    "is misspelt, or has a value of another type, is refused before anything starts, with the nearest there is."
)


def _table_row(key: Key) -> str:
    default = f"`{_cell(key.default)}`" if key.default else ""
    return f"| `{key.name}` | {_cell(key.kind)} | {default} | {_cell(key.says)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(document())
