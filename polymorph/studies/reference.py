"""What docs/tables.md says of the studies, made of what each says of itself.

`python -m polymorph.studies.reference docs/tables.md` writes it between its two marks.
"""

import itertools
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from polymorph.studies.registry import STUDIES
from polymorph.studies.study import Study

BEGIN = "<!-- studies: made by `python -m polymorph.studies.reference docs/tables.md` -->"
END = "<!-- end of studies -->"


def document() -> str:
    """A table of all studies, and a section on each."""
    lines = ["## Studies", "", "| study | question | key columns |", "|---|---|---|"]
    lines += [f"| `{name}` | {study.question} | {_keys(study)} |" for name, study in STUDIES.items()]
    for study in STUDIES.values():
        lines += ["", *section(study)]
    return "\n".join(lines) + "\n"


def section(study: Study) -> Iterator[str]:
    """Its question, what it needs, its metrics, its notes and its limits."""
    yield from (f"## {study.name}", "", study.question)
    if study.missing:
        yield from ("", f"It needs {study.missing}.")
    yield from ("", "| metric | definition |", "|---|---|")
    for definition, metrics in itertools.groupby(study.metrics, study.metrics.__getitem__):
        yield f"| {', '.join(f'`{metric}`' for metric in metrics)} | {_cell(definition)} |"
    notes = files(study.package).joinpath("notes.md")
    if notes.is_file():
        yield from ("", notes.read_text(encoding="utf-8").rstrip("\n"))
    if study.limits:
        yield from ("", *(f"- {limit}" for limit in study.limits))


def within(text: str) -> str:
    """A document with what stands between the marks made anew; `ValueError` where it does not have them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks the line {BEGIN if not begin else END}")
    return f"{before}{BEGIN}\n\n{document()}\n{END}{after}"


def _keys(study: Study) -> str:
    return ", ".join(f"`{name}`" for name in study.columns)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(within(path.read_text(encoding="utf-8")), encoding="utf-8")
