"""Markdown: every table is one, and every module, file and link that a text names is there."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")],
)
PARSER = MarkdownIt("commonmark").enable("table")
ROW = re.compile(r"^\s*\|.*\|\s*$")
PLACE = re.compile(r"\b(?:polymorph|tests|benchmarks|examples|conf)/[\w./-]+")
MODULE = re.compile(r"\bpolymorph(?:\.[A-Za-z_]\w*)+")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
HISTORY = {"CHANGELOG.md"}
"""Documents that name what has gone."""


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def broken_tables(text: str) -> list[str]:
    """Lines that look like a row of a table, and that a reader would see with its bars; rows of other lengths."""
    tokens = PARSER.parse(text)
    bare = [
        line for token in _outside_tables(tokens) for line in token.content.splitlines() if ROW.match(line)
    ]
    return bare + [line for token in tokens if token.type == "table_open" for line in _uneven(token, text)]


def _outside_tables(tokens: list[Token]) -> Iterator[Token]:
    inside = 0
    for token in tokens:
        inside += (token.type == "table_open") - (token.type == "table_close")
        if token.type == "inline" and not inside:
            yield token


def _uneven(table: Token, text: str) -> Iterator[str]:
    assert table.map is not None
    lines = [line for line in text.splitlines()[slice(*table.map)] if line.strip()]
    width = _cells(lines[0])
    yield from (line for line in lines if _cells(line) != width)


def _cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line.strip())) - 1


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_table_is_one(path):
    assert broken_tables(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n",
        "| a | b |\n| 1 | 2 |\n",
        "| a | b |\n|---|\n| 1 | 2 |\n",
        "| a | b |\n|---|---|\n| 1 | 2 | 3 |\n",
        "| a | b |\n|---|---|\n| 1 |\n",
    ],
    ids=["a blank line", "no rule", "a short rule", "a long row", "a short row"],
)
def test_a_broken_table_is_seen(text):
    assert broken_tables(text) != []


def test_a_bar_in_a_cell_breaks_no_table():
    assert broken_tables("| a | b |\n|---|---|\n| 1 \\| 2 | 3 |\n\ntext with a | bar\n") == []


def missing_places(text: str) -> list[str]:
    """Paths of the repository that are named and not there; those with a placeholder are not paths."""
    found = [(match[0].rstrip("./-"), text[match.end() : match.end() + 1]) for match in PLACE.finditer(text)]
    return sorted({name for name, after in found if after not in ("<", "*", "…") and not _is_there(name)})


def _is_there(name: str) -> bool:
    return (ROOT / name).exists() or (ROOT / "polymorph" / name).exists()


def missing_names(text: str) -> list[str]:
    """Dotted names that resolve to no module and to no attribute of one."""
    return sorted({match[0] for match in MODULE.finditer(text) if not _resolves(match[0])})


def _resolves(name: str) -> bool:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name not in HISTORY], ids=ids)
def test_every_path_and_name_of_the_package_is_there(path):
    text = path.read_text(encoding="utf-8")
    assert missing_places(text) == []
    assert missing_names(text) == []


def test_what_is_not_there_is_seen():
    assert missing_places("see `polymorph/nowhere.py` and polymorph/alignment/maps.py") == [
        "polymorph/nowhere.py"
    ]
    assert missing_places("`polymorph/studies/<name>/rows.py`, `tests/test_rooms.py`.") == []
    assert missing_names("`polymorph.alignment.maps.Map` and `polymorph.alignment.maps.Mop`") == [
        "polymorph.alignment.maps.Mop"
    ]


def missing_links(path: Path, text: str) -> list[str]:
    """Targets of links to files that are not there, as seen from the document."""
    targets = {target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)}
    return sorted(target for target in targets if not (path.parent / target).exists())


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_every_link_leads_somewhere(path):
    assert missing_links(path, path.read_text(encoding="utf-8")) == []


def test_a_link_to_nowhere_is_seen():
    assert missing_links(ROOT / "README.md", "[a](docs/nowhere.md#x) [b](README.md) [c](https://x.org)") == [
        "docs/nowhere.md"
    ]
