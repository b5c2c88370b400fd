"""Every name that is used is defined. Shapes in annotations are strings that look like names, so linters are told to
leave undefined names alone, and this looks for those outside strings."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("polymorph", "tests", "benchmarks", "examples", "train.py", "analyze.py")


def undefined(*paths: Path) -> list[str]:
    """`file:row name` of each name that nothing defines, where it is no part of a string."""
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F821", "--output-format=json"]
    found = json.loads(subprocess.run([*ruff, *map(str, paths)], capture_output=True, check=False).stdout)
    told = []
    for one in found:
        path, place = Path(one["filename"]), one["location"]
        if not in_string(path, place["row"], place["column"] - 1):
            told.append(f"{path.name}:{place['row']} {one['message']}")
    return told


def in_string(path: Path, row: int, column: int) -> bool:
    return any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (node.lineno, node.col_offset) <= (row, column) < (node.end_lineno, node.end_col_offset)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_every_name_is_defined():
    assert undefined(*(ROOT / folder for folder in FOLDERS)) == []


@pytest.mark.parametrize(
    ("line", "seen"), [("x = nowhere", True), ('from jaxtyping import Float\nx: Float[list, "n d"]', False)]
)
def test_an_undefined_name_is_seen_and_a_shape_is_not(tmp_path, line, seen):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert bool(undefined(path)) == seen
