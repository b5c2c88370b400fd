"""Imports point one way, and other rules that hold for every file of the package."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "polymorph"

ROOMS = (
    "errors",
    "checks",
    "code_version",
    "presets",
    "progress",
    "kernels",
    "store",
    "tasks",
    "models",
    "training",
    "alignment",
    "saes",
    "components",
    "steering",
    "evidence",
    "verdicts",
    "plotting",
    "studies",
    "tracking",
    "report",
    "papers",
    "pipeline",
    "cli",
)
"""A room imports only from itself and from rooms before it."""

DOORS = {"__init__", "__main__"}
"""Of the package itself: they belong to no room."""
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FUNCTION = 50


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(source: ast.AST, package: str = "polymorph") -> Iterator[str]:
    """Rooms that a module imports from, at its top or inside a function; `package` where it imports the whole."""
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first in ("", package):
                yield rest[0] if rest and first else package


def misplaced(room: str, imports: Iterator[str]) -> list[str]:
    allowed = ROOMS[: ROOMS.index(room) + 1]
    return sorted({name for name in imports if name not in allowed})


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_room_has_its_place():
    assert {room_of(path) for path in MODULES} - DOORS == set(ROOMS)


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) not in DOORS], ids=ids)
def test_a_module_imports_only_from_its_room_and_those_before(path):
    assert misplaced(room_of(path), imported_rooms(tree(path))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import polymorph",
        "import polymorph.report.page",
        "from polymorph import studies",
        "from polymorph.pipeline.callback import CrossSeed",
        "from . import stack",
        "from ..report import page",
        "def late():\n    from polymorph.pipeline.comparison import Comparison",
        "if TYPE_CHECKING:\n    import polymorph.evidence.rows as rows",
    ],
)
def test_the_wrong_way_is_seen(line):
    """The opposite, for the room training. Relative imports are not used; they are refused, not resolved."""
    assert misplaced("training", imported_rooms(ast.parse(line))) != []


@pytest.mark.parametrize(
    "line",
    ["import polymorph.tasks.dyck", "from polymorph.training import stack", "from polymorphic import x"],
)
def test_the_right_way_is_let_pass(line):
    assert misplaced("training", imported_rooms(ast.parse(line))) == []


def importers_of(room: str) -> set[str]:
    paths = [path for path in MODULES if room_of(path) not in {*DOORS, room}]
    return {room_of(path) for path in paths if room in imported_rooms(tree(path))}


def test_nothing_knows_the_commands_or_who_looks_at_training():
    assert importers_of("cli") == set()
    watching = ("evidence", "studies", "tracking", "report", "pipeline")
    assert not any("training" in importers_of(room) for room in watching)
    assert "pipeline" in importers_of("training")  # it is the other way round


def test_no_file_is_called_utils():
    vague = re.compile(r"utils?|helpers?|misc|common", re.IGNORECASE)
    files = [
        path for folder in ("polymorph", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    assert [str(path.relative_to(ROOT)) for path in files if vague.fullmatch(path.stem)] == []


@pytest.mark.parametrize("path", [p for p in MODULES if p.stat().st_size], ids=ids)
def test_a_module_says_what_it_is_for(path):
    """Empty files, which only make a folder a package, have nothing to say."""
    assert ast.get_docstring(tree(path))


def functions(source: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_functions_are_short(path):
    assert [name for name, lines in functions(tree(path)) if lines > LONGEST_FUNCTION] == []


def test_a_long_function_is_seen():
    source = "class A:\n    def long(self):\n" + "        pass\n" * LONGEST_FUNCTION
    assert list(functions(ast.parse(source))) == [("long", LONGEST_FUNCTION + 1)]


MACHINE = re.compile(r"(?<![\w.:/<>{}*-])/(?:home|Users|root|work|mnt|opt|scratch|data|var|private)/\w")
PROSE = {".py", ".md", ".yaml", ".yml", ".toml", ".html", ".txt", ".cfg", ".sh", ".j2"}


def texts() -> list[Path]:
    folders = ("polymorph", "conf", "tests", "benchmarks", "docs")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    paths = [path for path in (*inside, *ROOT.iterdir()) if path.is_file()]
    return [path for path in paths if path.suffix in PROSE or path.name == "Makefile"]


def test_no_text_names_a_place_on_somebodys_machine():
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE.search(line)
    ]
    assert found == []


def test_a_place_on_a_machine_is_seen():
    for folder in ("home", "work", "Users"):
        assert MACHINE.search(f'cohort = "/{folder}/somebody/cohorts"')
    assert not MACHINE.search("https://host/home/page, cohorts/home/x and 1/data/2")
