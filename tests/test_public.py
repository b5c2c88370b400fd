"""What a public project promises: one version everywhere, examples that run, a site that builds, the same checks."""

import doctest
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXAMPLES = sorted(
    path for path in (ROOT / "polymorph").rglob("*.py") if "\n>>> " in path.read_text(encoding="utf-8")
)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", [module_of(path) for path in EXAMPLES])
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_package_has_an_example_at_its_door():
    assert "polymorph" in map(module_of, EXAMPLES)


def test_the_version_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert f"\n## {PROJECT['version']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_actions_run_what_is_run_here_under_every_python_that_is_promised():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["ci"]
    assert job["steps"][-1] == {"run": "bash .ci/run"}
    assert f">={job['strategy']['matrix']['python'][0]}" == PROJECT["requires-python"]


def test_hooks_are_what_make_check_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # nothing is downloaded
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks[0]["hooks"]:
        assert hook["entry"].replace(".venv", "$(VENV)").replace(" --force-exclude", "") in makefile


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_without_a_network(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")}
    assert {"index.html", "concepts.html", "api/index.html", "api/alignment.html"} <= pages
    front = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis" not in front
    assert 'src="https://' not in front
    assert "explained_variance" in (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
